"""The ports of the platform: finding out who has one, and keeping it while a server restarts.

The usual ports lie among those that the kernel lends to outgoing connections. Without a hold on
them, a port whose server is being started again may be lent to a client meanwhile, even to one that
only tries whether the server is back, and the server then finds it taken.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgfleet_local.settings import API_PORT, DB_PORT, HOST, LocalError, StackSettings

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
LISTENING, WAITING = "0A", "06"
Kind = Literal["server", "connection", "ended"]
USUAL_PORTS = {"db_port": DB_PORT, "api_port": API_PORT}
# Longer than the kernel keeps a port for a connection that has ended.
ENDED_SECONDS = 65.0
# Where to look for a port when the usual one cannot be had.
SUBSTITUTES = 20
STEP = 10


class PortTaken(LocalError):
    """A port cannot be had, because of a server, a connection, or one that has ended."""

    def __init__(self, port: int, kind: Kind, holder: str) -> None:
        super().__init__(f"port {port} is taken: {holder}")
        self.port = port
        self.kind = kind
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Connection:
    """A socket of this machine, as the kernel lists it."""

    local_port: int
    remote: str
    state: str
    inode: int


class PortHold:
    """A port that nobody but our servers gets, for as long as this is open."""

    def __init__(self, port: int) -> None:
        """Take the port, or raise `PortTaken` and say who has it.

        The socket is bound and never listens, and may be shared, as those of servers may: they can
        bind the same port, a connection that goes out cannot be given it.
        """
        self.port = port
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            raise _taken(port, error) from error

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def hold_port(port: int) -> PortHold:
    """Take this port and no other, or raise `PortTaken`."""
    hold = PortHold(port)
    # A server with the same right to share would not keep us from binding, only from listening.
    listener = next((one for one in connections(port) if one.state == LISTENING), None)
    if listener is not None:
        hold.close()
        raise PortTaken(port, "server", f"{_owner(listener)} listens on it")
    return hold


def wait_for_port(port: int, seconds: float) -> PortHold:
    """Take the port, waiting for a connection that has ended to let go of it; or `PortTaken`."""
    end = time.monotonic() + seconds
    while True:
        try:
            return hold_port(port)
        except PortTaken as error:
            if error.kind != "ended" or time.monotonic() > end:
                raise
        time.sleep(0.5)


def take_ports(
    settings: StackSettings, say: Callable[[str], None], holds: ExitStack
) -> dict[str, int]:
    """Take the ports of a platform, to be let go of with `holds`, and give them by their names.

    Where nobody chose a port, another one will do when a mere connection has the usual one. A
    server on a usual port is most likely another platform, which people should know of. Raises
    `PortTaken` when a port cannot be had.
    """
    ports = {}
    for name, usual in USUAL_PORTS.items():
        wanted = usual if settings.any_ports else getattr(settings, name)
        try:
            hold = _take(wanted, settings.any_ports, say)
        except PortTaken as error:
            hint = f"choose another one in PGFLEET_LOCAL_{name.upper()}"
            raise PortTaken(error.port, error.kind, f"{error.holder}; {hint}") from error
        holds.callback(hold.close)
        ports[name] = hold.port
    return ports


def _take(port: int, any_port: bool, say: Callable[[str], None]) -> PortHold:
    try:
        return hold_port(port)
    except PortTaken as error:
        if any_port and error.kind != "server":
            hold = _substitute(port)
            say(f"{error}; using port {hold.port}")
            return hold
        if error.kind != "ended":
            raise
        say(f"{error}; waiting for it")
        return wait_for_port(port, ENDED_SECONDS)


def _substitute(port: int) -> PortHold:
    """Take a port near one that cannot be had, or raise `PortTaken`."""
    for number in range(1, SUBSTITUTES):
        with suppress(PortTaken):
            return hold_port(port + number * STEP)
    return hold_port(port + SUBSTITUTES * STEP)


def connections(port: int) -> list[Connection]:
    """List the sockets with this local port, where the kernel has such a list."""
    return [one for one in _all_connections() if one.local_port == port]


def _all_connections() -> Iterator[Connection]:
    for table in TABLES:
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                port = int(words[1].rpartition(":")[2], 16)
                yield Connection(port, _address(words[2]), words[3], int(words[9]))


def _address(text: str) -> str:
    """Read an address as the kernel prints it: each four bytes in the machine's own order."""
    digits, _, port = text.rpartition(":")
    words = [bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8)]
    packed = b"".join(words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, packed)}:{int(port, 16)}"


def _taken(port: int, error: OSError) -> PortTaken:
    found = connections(port)
    for one in found:
        if one.state == LISTENING:
            return PortTaken(port, "server", f"{_owner(one)} listens on it")
    for one in found:
        if one.state != WAITING and one.inode:
            holder = f"{_owner(one)} has a connection from it to {one.remote}"
            return PortTaken(port, "connection", holder)
    if found:
        return PortTaken(port, "ended", "a connection that has ended keeps it for up to a minute")
    return PortTaken(port, "server", f"another program has it ({error.strerror})")


def _owner(one: Connection) -> str:
    """Name the process that has the socket, as far as we may look."""
    wanted = f"socket:[{one.inode}]"
    for folder in Path("/proc").glob("[0-9]*"):
        # Files are closed and processes end while we look.
        with suppress(OSError):
            for link in (folder / "fd").iterdir():
                if link.is_symlink() and str(link.readlink()) == wanted:
                    name = (folder / "comm").read_text().strip()
                    return f"process {folder.name} ({name})"
    return "a process of another account"
