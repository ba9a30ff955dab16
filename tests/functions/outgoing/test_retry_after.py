from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pgfleet_functions.outgoing.retry_after import http_date, pause_of, retry_after

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = 86_400
NONSENSE = [
    *("", " ", "soon", "-5", "1.5", "٣", "1e3", "0x10", "1 2", "3, 5", "9" * 5000, "٣" * 70),
    *("Mon, 32 Foo 2026", "Sun, 01 Mar 99999 00:00:00 GMT", "Sun, 01 Mar 2026 99:99:99 GMT"),
    *("Sun, 01 Mar 2026 12:00:00 +9999999999999999", "Mon, 01 Jan 0001 00:00:00 +9959"),
]


def at(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("120", 120), ("0", 0), (" 7 ", 7), (str(10**9), DAY), ("9" * 60, DAY)),
        *((at(90), 90), (at(-86_400), 0), (at(10**7), DAY), (at(90).replace("GMT", "-0000"), 90)),
        (at(90).replace("GMT", "+0100"), 0),
    ],
)
def test_it_is_seconds_or_a_date_up_to_a_day(text: str, seconds: int) -> None:
    assert retry_after({"retry-after": text}, NOW.timestamp()) == seconds


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_says_nothing(text: str) -> None:
    assert retry_after({"retry-after": text}, NOW.timestamp()) is None
    assert http_date(text) is None


def test_a_header_that_is_not_there_says_nothing() -> None:
    assert (retry_after({}), pause_of({}), http_date(None)) == (None, None, None)


@pytest.mark.parametrize(
    ("reset", "pause"),
    [
        *(("5", 5), ("0.25", 0.25), ("-3", 0), ("1e8", DAY), (str(NOW.timestamp() + 30), 30)),
        *((str(NOW.timestamp() - 30), 0), ("nan", None), ("inf", None), ("-inf", None)),
        *(("x", None), ("9" * 5000, None), ("", None)),
    ],
)
def test_a_reset_is_seconds_or_a_moment(reset: str, pause: float | None) -> None:
    assert pause_of({"x-ratelimit-reset": reset}, NOW.timestamp()) == pause


def test_retry_after_comes_first() -> None:
    headers = {"retry-after": "3", "x-ratelimit-reset": "40"}
    assert pause_of(headers) == 3
    assert pause_of(headers | {"retry-after": "soon"}) == 40
