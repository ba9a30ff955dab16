"""The addresses that a delivery connects to, as Python judges them; SQL judges the same."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from pgfleet_functions.notify.webhook import outcome_of
from pgfleet_functions.outgoing.addresses import addresses_of, is_public
from pgfleet_functions.outgoing.answers import Answer
from pgfleet_functions.outgoing.errors import AddressRefused, AddressUnknown

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.0.1
    169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.254 192.0.0.8 192.0.2.1 192.88.99.1
    192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255
    240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 100::1 fc00::1
    fdff::1 fe80::1 fec0::1 ff02::1 ff0e::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:808:808::
    3fff::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.1.1.1 128.0.0.1
    172.15.255.255 172.32.0.1 192.167.1.1 192.169.1.1 198.17.0.1 198.20.0.1 223.255.255.254
    2606:4700:4700::1111 2a00:1450:4001:80b::200e 2001:4860:4860::8888
"""


@pytest.mark.parametrize("text", PRIVATE.split())
def test_what_is_not_of_the_internet_is_not_public(db: Any, text: str) -> None:
    in_sql = db.execute("select fleet.is_public_address(%s::inet)", (text,)).fetchone()[0]
    assert (is_public(ipaddress.ip_address(text)), in_sql) == (False, False)


@pytest.mark.parametrize("text", PUBLIC.split())
def test_what_is_of_the_internet_is_public(db: Any, text: str) -> None:
    in_sql = db.execute("select fleet.is_public_address(%s::inet)", (text,)).fetchone()[0]
    assert (is_public(ipaddress.ip_address(text)), in_sql) == (True, True)


@pytest.mark.parametrize(
    ("text", "public"), [("64:ff9b::808:808", True), ("64:ff9b::a00:1", False)]
)
def test_an_address_behind_nat64_is_judged_by_what_it_carries(text: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is public


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "127.1", "0x7f.1", "2130706433"])
def test_a_host_that_stands_for_this_machine_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        asyncio.run(addresses_of(host, 443, allow_private=False))
    assert asyncio.run(addresses_of(host, 443, allow_private=True))


def test_a_host_that_stands_for_nothing_may_come_back() -> None:
    with pytest.raises(AddressUnknown):
        asyncio.run(addresses_of("nothing.invalid", 443, allow_private=False))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((200, "delivered"), (204, "delivered"), (301, "retry"), (304, "retry"), (400, "retry")),
        *((404, "retry"), (410, "gone"), (429, "retry"), (500, "retry"), (503, "retry")),
    ],
)
def test_an_answer_is_judged_by_its_status(status: int, kind: str) -> None:
    answer = Answer(status, httpx.Headers(), b"", datetime.now(UTC))
    assert outcome_of(answer).kind == kind
