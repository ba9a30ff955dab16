"""Where a call may go: the addresses behind a name, looked at before they are used."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import Executor

from pgfleet_functions.outgoing.errors import AddressRefused, AddressUnknown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What is open to everybody is said here, not left to `is_global`, which differs between versions
# of Python. fleet.is_public_address says the same.
_CLOSED_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    )
)
# Of IPv6 only what is given out to the public, without the forms that carry an IPv4 address.
_OPEN_6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Tell whether an address is neither private, loopback, link-local, multicast nor reserved."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    if address in _TRANSLATED:
        # A network without IPv4 reaches it through this prefix.
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


async def addresses_of(
    host: str, port: int, *, allow_private: bool, resolvers: Executor | None = None
) -> list[str]:
    """Resolve a host, for the caller to connect to just these addresses and no others.

    One private address among them refuses the host: whoever answers for its name may change
    the answer from one question to the next. The look-up holds a thread of `resolvers` until the
    name server answers, also when the caller has gone. Raises `AddressRefused`, `AddressUnknown`.
    """
    try:
        found = await asyncio.get_running_loop().run_in_executor(resolvers, _look_up, host, port)
    except (OSError, UnicodeError) as error:
        raise AddressUnknown(f"the host {host} has no address: {error}") from error
    # Of a link-local address the interface follows a percent sign.
    addresses = list(dict.fromkeys(str(known[4][0]).partition("%")[0] for known in found))
    if not allow_private:
        for text in addresses:
            if not is_public(ipaddress.ip_address(text)):
                raise AddressRefused(f"the host {host} stands for the private address {text}")
    return addresses


def _look_up(host: str, port: int) -> list[tuple[object, object, int, str, tuple[object, ...]]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
