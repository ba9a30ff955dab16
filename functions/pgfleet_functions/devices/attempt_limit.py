"""Slow down whoever guesses codes and secrets, by address."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request

from pgfleet_functions.errors import TooMany

BURST = 20
SECONDS_PER_GUESS = 6.0
MOST_ADDRESSES = 10_000


class Guesses:
    """Count wrong guesses in a bucket for each address, refilled over time.

    Only wrong guesses cost anything: a school full of devices behind one address may enrol at
    once. The oldest addresses are forgotten first, so memory is bounded.
    """

    def __init__(
        self,
        burst: int = BURST,
        seconds_per_guess: float = SECONDS_PER_GUESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._pace = seconds_per_guess
        self._clock = clock
        # For each address, when its bucket will be full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def check(self, request: Request) -> None:
        """Refuse an address that has no guess left."""
        wait = self._debt(_address(request)) - self._burst * self._pace + self._pace
        if wait > 0:
            seconds = max(1, math.ceil(wait))
            raise TooMany(
                "too many wrong attempts from this address",
                details="too_many_attempts",
                hint=f"Try again in {seconds} seconds.",
                headers={"Retry-After": str(seconds)},
            )

    def count(self, request: Request) -> None:
        """Take one guess from the address."""
        address = _address(request)
        self._full_at[address] = self._clock() + self._debt(address) + self._pace
        self._full_at.move_to_end(address)
        while len(self._full_at) > MOST_ADDRESSES:
            self._full_at.popitem(last=False)

    def _debt(self, address: str) -> float:
        return max(0.0, self._full_at.get(address, 0.0) - self._clock())


def _address(request: Request) -> str:
    """Return the address of the client; of IPv6, the network that one customer gets."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host
