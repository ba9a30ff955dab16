"""What answers say about time: when to come back, and how late it is over there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86_400
# Larger numbers in X-RateLimit-Reset are moments, smaller ones are seconds to wait.
EPOCH_FROM = 1e9
# The longest number that can mean something; Python refuses to read one of thousands of digits.
MOST_CHARACTERS = 64


def retry_after(headers: Mapping[str, str], now: float | None = None) -> int | None:
    """Read Retry-After, seconds or a date, as whole seconds from 0 to a day; None for nonsense.

    `now` is in seconds since 1970.
    """
    text = headers.get("retry-after", "").strip()
    if len(text) > MOST_CHARACTERS:
        return None
    if text.isascii() and text.isdecimal():
        return min(int(text), LONGEST_SECONDS)
    moment = http_date(text)
    return None if moment is None else int(_bounded(moment.timestamp() - _now(now)))


def pause_of(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read how long to wait: Retry-After, else X-RateLimit-Reset; seconds from 0 to a day."""
    seconds = retry_after(headers, now)
    if seconds is not None:
        return float(seconds)
    text = headers.get("x-ratelimit-reset", "").strip()
    try:
        reset = float(text) if len(text) <= MOST_CHARACTERS else math.nan
    except ValueError:
        return None
    if not math.isfinite(reset):
        return None
    return _bounded(reset - _now(now) if reset > EPOCH_FROM else reset)


def http_date(text: str | None) -> datetime | None:
    """Read a date as HTTP has it; one without a zone is UTC, and nonsense is None."""
    if not text or len(text) > MOST_CHARACTERS:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        # What the standard library makes of nonsense differs from one nonsense to the next.
        return None


def _now(given: float | None) -> float:
    return time.time() if given is None else given


def _bounded(seconds: float) -> float:
    return max(0.0, min(seconds, float(LONGEST_SECONDS)))
