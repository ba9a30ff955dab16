"""The official clients against the whole local platform and the real schema."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jwt
import psycopg
import pytest


@dataclass(frozen=True)
class Device:
    """A device and its platform."""

    stack: Any
    id: int
    auth_id: str
    hostname: str

    def token(self, expires_in: float = 3600) -> str:
        """Sign what device-token would."""
        claims = {
            "role": "authenticated",
            "sub": self.auth_id,
            "exp": int(time.time() + expires_in),
        }
        return jwt.encode(claims, self.stack.settings.jwt_secret)

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run and commit a statement as postgres."""
        with psycopg.connect(self.stack.settings.db_url) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def send(self, message: str) -> int:
        """Give the device something to do and return the command's id."""
        (row,) = self.sql(
            "insert into public.device_commands (device_id, command_type, payload)"
            " values (%s, 'broadcast_message', %s) returning id",
            self.id,
            json.dumps({"message": message}),
        )
        return int(row[0])

    def doorbell(self) -> dict[str, Any]:
        """Ask for the private topic."""
        return {"name": f"device:{self.auth_id}", "private": True, "broadcast": ["command"]}

    def rows(self, **binding: str) -> dict[str, Any]:
        """Ask for inserted commands."""
        table = {"event": "INSERT", "schema": "public", "table": "device_commands"}
        return {"name": "commands", "changes": [table | binding]}


@pytest.fixture
def add_device(stack: Any) -> Callable[[], Device]:
    """Give a function that registers one more device of one owner."""
    with psycopg.connect(stack.settings.db_url) as connection:
        row = connection.execute(
            "insert into public.owners (name) values ('realtime') returning id"
        ).fetchone()
        assert row is not None

    def add() -> Device:
        hostname = f"laptop-{secrets.token_hex(3)}"
        with psycopg.connect(stack.settings.db_url) as connection:
            made = connection.execute(
                "insert into public.devices (owner_id, hostname) values (%s, %s)"
                " returning id, auth_id::text",
                (row[0], hostname),
            ).fetchone()
        assert made is not None
        return Device(stack, made[0], made[1], hostname)

    return add


@pytest.fixture
def join(stack: Any, listen: Any) -> Callable[..., Any]:
    """Give a function that starts an official client on the platform."""

    def start(*channels: dict[str, Any], token: str | None = None) -> Any:
        settings = stack.settings
        return listen(settings.api_url, settings.anon_key, list(channels), token=token)

    return start


def test_a_device_hears_its_own_doorbell_and_no_other(add_device: Any, join: Any) -> None:
    one, two = add_device(), add_device()
    client = join(one.doorbell(), token=one.token())
    client.ready()

    two.send("for two")
    command = one.send("for one")
    rung = client.next("broadcast")

    assert rung["event"] == "command"
    assert rung["payload"]["command_id"] == command
    assert rung["payload"]["command_type"] == "broadcast_message"
    assert client.left("broadcast") == []


@pytest.mark.parametrize("filtered", [True, False])
def test_a_device_hears_of_its_own_commands_and_no_other(
    add_device: Any, join: Any, filtered: bool
) -> None:
    one, two = add_device(), add_device()
    binding = {"filter": f"device_hostname=eq.{one.hostname}"} if filtered else {}
    client = join(one.rows(**binding), token=one.token())
    client.ready()

    two.send("for two")
    command = one.send("for one")
    row = client.next("change")["new"]

    assert (row["id"], row["device_hostname"]) == (command, one.hostname)
    assert row["payload"] == {"message": "for one"}
    assert client.left("change") == []


def test_a_device_cannot_join_the_topic_of_another(add_device: Any, join: Any) -> None:
    one, two = add_device(), add_device()
    client = join(two.doorbell(), token=one.token())

    assert "Unauthorized" in client.status(f"device:{two.auth_id}", "CHANNEL_ERROR")["error"]


def test_a_device_that_filters_for_another_hears_nothing(add_device: Any, join: Any) -> None:
    one, two = add_device(), add_device()
    spy = join(one.rows(filter=f"device_hostname=eq.{two.hostname}"), token=one.token())
    witness = join(two.rows(), token=two.token())
    spy.ready()
    witness.ready()

    two.send("for two")

    witness.next("change")
    assert spy.left("change") == []


def test_the_anonymous_hear_nothing(add_device: Any, join: Any) -> None:
    one = add_device()
    nobody = join(one.rows())
    refused = join(one.doorbell())
    witness = join(one.rows(), token=one.token())
    nobody.ready()
    witness.ready()

    assert "Unauthorized" in refused.status(f"device:{one.auth_id}", "CHANNEL_ERROR")["error"]
    one.send("for one")

    witness.next("change")
    # The hosted server tells of the error, and of nothing else.
    assert all(not change["new"] and not change["old"] for change in nobody.left("change"))
    assert refused.left("broadcast") == []


def test_a_retired_device_hears_nothing_more(add_device: Any, join: Any) -> None:
    one, two = add_device(), add_device()
    client = join(one.doorbell(), one.rows(event="*"), token=one.token())
    witness = join(two.rows(), two.doorbell(), token=two.token())
    client.ready()
    witness.ready()

    one.send("waits")
    client.next("change")
    client.next("broadcast")
    # Its waiting command is cancelled by this, which is an UPDATE of a row that was its own.
    one.sql("select public.retire_device(%s)", one.id)
    two.send("for two")

    witness.next("change")
    witness.next("broadcast")
    assert client.left("change") == client.left("broadcast") == []


def test_a_rekeyed_device_hears_under_its_new_identity_only(add_device: Any, join: Any) -> None:
    one = add_device()
    client = join(one.doorbell(), one.rows(event="*"), token=one.token())
    client.ready()

    ((auth_id,),) = one.sql(
        "select fleet.worker_enroll_device(public.rekey_device(%s) ->> 'code', %s, '{}')"
        " ->> 'auth_id'",
        one.id,
        one.hostname,
    )
    fresh = replace(one, auth_id=auth_id)
    successor = join(fresh.doorbell(), fresh.rows(), token=fresh.token())
    successor.ready()
    fresh.send("for the new one")

    successor.next("change")
    successor.next("broadcast")
    assert client.left("change") == client.left("broadcast") == []


def test_an_expired_token_hears_nothing(add_device: Any, join: Any) -> None:
    one = add_device()
    client, witness = (join(one.doorbell(), one.rows(), token=one.token()) for _ in range(2))
    client.ready()
    witness.ready()

    client.order(do="set_auth", token=one.token(expires_in=2.99))
    client.status(f"device:{one.auth_id}", "CLOSED")
    client.status("commands", "CLOSED")
    one.send("for one")

    witness.next("change")
    witness.next("broadcast")
    assert client.left("change") == client.left("broadcast") == []
