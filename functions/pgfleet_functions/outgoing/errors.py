"""Why a call to an address that somebody else chose brought no answer.

OutgoingError           the message is fit for people
 ├── AddressRefused     the address is not one that may be called; it never will be
 ├── AddressUnknown     the name stands for no address at the moment
 ├── NotConnected       nobody listens there, or the certificate is not of the name
 ├── NoAnswer           the connection broke, or what came was not HTTP
 ├── TooSlow            the time was over before all of the answer was there
 └── AnswerRefused      the answer is larger than it may be, or cannot be unpacked
"""

from __future__ import annotations


class OutgoingError(Exception):
    """A call brought no answer; `reached` is False where it surely never left."""

    def __init__(self, message: str, *, reached: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.reached = reached


class AddressRefused(OutgoingError):
    """The address is not one that may be called; the message says why."""


class AddressUnknown(OutgoingError):
    """A host stands for no address at the moment."""


class NotConnected(OutgoingError):
    """Nobody listens at the address, or the certificate is not of the name."""


class NoAnswer(OutgoingError):
    """The connection broke, or what came over it was not HTTP."""


class TooSlow(OutgoingError):
    """The time was over before all of the answer was there."""


class AnswerRefused(OutgoingError):
    """An answer is larger than it may be, or cannot be unpacked."""
