"""Who has a port, and how the platform gets and keeps its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from pgfleet_local.server import ports
from pgfleet_local.server.ports import PortHold, PortTaken, connections, hold_port, take_ports
from pgfleet_local.settings import HOST, StackSettings

Settings = Callable[[], StackSettings]


def shared(port: int) -> socket.socket:
    """Bind a port as servers do."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, port))
    return made


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """Listen somewhere."""
    with shared(0) as listener:
        listener.listen()
        yield listener


@pytest.fixture
def outgoing(peer: socket.socket) -> Iterator[socket.socket]:
    """Connect from a port that the kernel lends, and to nobody else until this has ended.

    A port that is not bound first may serve connections to several addresses at once.
    """
    with socket.create_connection(peer.getsockname(), source_address=(HOST, 0)) as made:
        yield made


def test_a_server_gets_the_port_that_is_held_for_it(free_port: Callable[[], int]) -> None:
    port = free_port()
    hold = hold_port(port)
    for _ in range(2):
        with shared(port) as server:
            server.listen()
            socket.create_connection((HOST, port)).close()
    hold.close()


def test_a_held_port_is_lent_to_no_connection(peer: socket.socket) -> None:
    with shared(0) as probe:
        port = probe.getsockname()[1]
    hold = PortHold(port)
    with socket.socket() as client, pytest.raises(OSError, match="in use"):
        client.bind((HOST, port))
    hold.close()


def test_the_process_that_listens_is_named(peer: socket.socket) -> None:
    with pytest.raises(PortTaken, match=rf"process {os.getpid()} \(.*\) listens on it") as caught:
        hold_port(peer.getsockname()[1])
    assert caught.value.kind == "server"


def test_the_process_that_has_a_connection_is_named(
    peer: socket.socket, outgoing: socket.socket
) -> None:
    to = f"{HOST}:{peer.getsockname()[1]}"
    with pytest.raises(
        PortTaken, match=rf"process {os.getpid()} \(.*\) has a connection from it to {to}"
    ) as caught:
        hold_port(outgoing.getsockname()[1])
    assert caught.value.kind == "connection"


def test_a_connection_that_has_ended_keeps_its_port_for_a_while(
    peer: socket.socket, outgoing: socket.socket
) -> None:
    port = outgoing.getsockname()[1]
    outgoing.close()
    peer.accept()[0].close()

    assert [one.state for one in connections(port)] == [ports.WAITING]
    with pytest.raises(PortTaken, match="has ended keeps it") as caught:
        hold_port(port)
    assert caught.value.kind == "ended"


def usual(monkeypatch: pytest.MonkeyPatch, db: int, api: int) -> None:
    monkeypatch.setattr(ports, "USUAL_PORTS", {"db_port": db, "api_port": api})


def test_another_port_takes_the_place_of_one_that_a_connection_has(
    monkeypatch: pytest.MonkeyPatch,
    stack_settings: Settings,
    free_port: Callable[[], int],
    outgoing: socket.socket,
) -> None:
    busy = outgoing.getsockname()[1]
    free = free_port()
    usual(monkeypatch, busy, free)
    said: list[str] = []

    with ExitStack() as holds:
        found = take_ports(replace(stack_settings(), any_ports=True), said.append, holds)

    assert found["api_port"] == free
    assert found["db_port"] > busy
    assert (found["db_port"] - busy) % ports.STEP == 0
    assert len(said) == 1
    assert f"port {busy} is taken: process {os.getpid()}" in said[0]
    assert said[0].endswith(f"; using port {found['db_port']}")


def test_a_server_on_a_usual_port_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    stack_settings: Settings,
    free_port: Callable[[], int],
    peer: socket.socket,
) -> None:
    usual(monkeypatch, free_port(), peer.getsockname()[1])

    with ExitStack() as holds, pytest.raises(PortTaken, match="choose another one in") as caught:
        take_ports(replace(stack_settings(), any_ports=True), print, holds)
    assert "PGFLEET_LOCAL_API_PORT" in str(caught.value)


def test_a_port_that_was_chosen_is_taken_or_nothing(
    stack_settings: Settings, outgoing: socket.socket
) -> None:
    chosen = replace(stack_settings(), db_port=outgoing.getsockname()[1])

    with ExitStack() as holds, pytest.raises(PortTaken, match="PGFLEET_LOCAL_DB_PORT"):
        take_ports(chosen, print, holds)


def test_a_chosen_port_is_waited_for_while_an_ended_connection_has_it(
    monkeypatch: pytest.MonkeyPatch, stack_settings: Settings
) -> None:
    chosen, tries, said = stack_settings(), [], []
    real = ports.PortHold

    def hold(port: int) -> Any:
        tries.append(port)
        if len(tries) < 3:
            raise PortTaken(port, "ended", "a connection that has ended keeps it")
        return real(port)

    monkeypatch.setattr(ports, "PortHold", hold)
    with ExitStack() as holds:
        found = take_ports(chosen, said.append, holds)

    assert found == {"db_port": chosen.db_port, "api_port": chosen.api_port}
    assert said == [
        f"port {chosen.db_port} is taken: a connection that has ended keeps it; waiting for it"
    ]


def test_everything_is_let_go_of_when_one_port_cannot_be_had(
    stack_settings: Settings, peer: socket.socket
) -> None:
    chosen = replace(stack_settings(), api_port=peer.getsockname()[1])

    with pytest.raises(PortTaken), ExitStack() as holds:
        take_ports(chosen, print, holds)
    hold_port(chosen.db_port).close()
