from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request

from pgfleet_functions.devices.attempt_limit import BURST, AttemptLimit
from pgfleet_functions.errors import FunctionError, NotSignedIn, TooMany

REFUSAL = NotSignedIn("the secret is not good")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def come_from(host: str) -> Request:
    return Request({"type": "http", "client": (host, 1), "headers": [], "method": "POST"})


def answers(limit: AttemptLimit, *hosts: str) -> list[type[FunctionError]]:
    return [type(limit.wrong(come_from(host), REFUSAL)) for host in hosts]


def test_the_first_wrong_attempts_are_answered_as_what_they_are_and_then_slowly() -> None:
    clock = Clock()
    limit = AttemptLimit(burst=3, seconds_per_attempt=6, clock=clock)
    assert answers(limit, *["10.0.0.1"] * 5) == [NotSignedIn] * 3 + [TooMany] * 2
    clock.now += 6.1
    assert answers(limit, *["10.0.0.1"] * 2) == [NotSignedIn, TooMany]
    clock.now += 100
    assert answers(limit, *["10.0.0.1"] * 4) == [NotSignedIn] * 3 + [TooMany]


def test_it_says_when_to_come_back() -> None:
    limit = AttemptLimit(burst=1, seconds_per_attempt=6, clock=Clock())
    answers(limit, "10.0.0.1")
    refused = limit.wrong(come_from("10.0.0.1"), REFUSAL)
    assert refused.headers == {"Retry-After": "6"}


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:1:2:3::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("", "", True),
    ],
)
def test_what_one_customer_has_shares_one_bucket(first: str, second: str, shared: bool) -> None:
    limit = AttemptLimit(burst=1, clock=Clock())
    assert answers(limit, first, second)[1] is (TooMany if shared else NotSignedIn)


def test_memory_is_bounded() -> None:
    limit = AttemptLimit(burst=1, clock=Clock())
    hosts = [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(10_001)]
    answers(limit, *hosts)
    assert answers(limit, hosts[0], hosts[-1]) == [NotSignedIn, TooMany]


def until_refused(attempt: Any) -> list[httpx.Response]:
    """Attempt until it was too often; while it goes on, one in six seconds is forgiven."""
    answers = [attempt()]
    while answers[-1].status_code != 429 and len(answers) < 5 * BURST:
        answers.append(attempt())
    return answers


@pytest.mark.parametrize(
    ("function", "wrong", "refused"),
    [
        ("device-token", {"device_secret": "pgfd_guess"}, 401),
        ("enroll-device", {"code": "GUESS", "hostname": "x"}, 401),
        ("integration-webhook/guess", {}, 404),
    ],
)
def test_only_wrong_attempts_are_refused_however_many_there_were(
    own_database: Any, serving_site: Any, free_port: Any, function: str, wrong: Any, refused: int
) -> None:
    with serving_site(own_database, free_port()) as site:
        secret = site.enroll("kiosk")["device_secret"]
        *first, last = until_refused(lambda: site.post(function, wrong))
        right = [
            site.post("device-token", {"device_secret": secret}).status_code,
            site.post("enroll-device", {"code": site.code(), "hostname": "new"}).status_code,
        ]
        again = until_refused(lambda: site.post("device-token", {"device_secret": "pgfd_x"}))

    assert len(first) >= BURST
    assert {answer.status_code for answer in first} == {refused}
    assert (last.status_code, last.json()["details"]) == (429, "too_many_attempts")
    assert 1 <= int(last.headers["retry-after"]) <= 6
    assert right == [200, 201]
    assert len(again) < BURST, "what is right forgives nothing"


@pytest.mark.parametrize(("proxies", "believed"), [((), False), (("127.0.0.0/30",), True)])
def test_a_proxy_is_believed_where_the_settings_name_it(
    own_database: Any,
    serving_site: Any,
    free_port: Any,
    proxies: tuple[str, ...],
    believed: bool,
) -> None:
    with serving_site(own_database, free_port(), trusted_proxies=proxies) as site:

        def guess(says: str) -> httpx.Response:
            body = {"device_secret": "pgfd_guess"}
            answer: httpx.Response = site.post(
                "device-token", body, headers={"X-Forwarded-For": says}
            )
            return answer

        until_refused(lambda: guess("198.51.100.1"))
        # What stands before the last address is what a caller says of itself.
        forged = until_refused(lambda: guess("203.0.113.9, 198.51.100.1"))
        other = until_refused(lambda: guess("198.51.100.2"))

    assert len(forged) < BURST
    assert (len(other) > BURST) is believed
