"""Slow down whoever guesses codes, secrets and addresses, by where the guesses come from."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request

from pgfleet_functions.errors import FunctionError, TooMany

BURST = 20
SECONDS_PER_ATTEMPT = 6.0
MOST_ADDRESSES = 10_000


class AttemptLimit:
    """Count wrong attempts in a bucket for each address, refilled over time.

    Only wrong ones count, and only wrong ones are refused: what is guessed has more than a hundred
    random bits, and behind the address of whoever guesses may be a school full of devices. The
    oldest addresses are forgotten first, so memory is bounded.
    """

    def __init__(
        self,
        burst: int = BURST,
        seconds_per_attempt: float = SECONDS_PER_ATTEMPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._pace = seconds_per_attempt
        self._clock = clock
        # For each address, when its bucket will be full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wrong(self, request: Request, refusal: FunctionError) -> FunctionError:
        """Count a wrong attempt and give what to answer: the refusal, or that it was too many."""
        address = _address(request)
        now = self._clock()
        debt = max(0.0, self._full_at.get(address, 0.0) - now)
        wait = debt - (self._burst - 1) * self._pace
        if wait <= 0:
            self._full_at[address] = now + debt + self._pace
            self._full_at.move_to_end(address)
            while len(self._full_at) > MOST_ADDRESSES:
                self._full_at.popitem(last=False)
            return refusal
        seconds = max(1, math.ceil(wait))
        return TooMany(
            "too many wrong attempts from this address",
            details="too_many_attempts",
            hint=f"Try again in {seconds} seconds; what is right is let in at any time.",
            headers={"Retry-After": str(seconds)},
        )


def _address(request: Request) -> str:
    """Return the address of the client; of IPv6, the network that one customer gets."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
