"""What can be made to go wrong in the sandbox, and how many requests it lets through."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


class SwitchError(ValueError):
    """Raised when a switch does not exist or cannot take the value."""


@dataclass(slots=True)
class Faults:
    """Switches that may be flipped while the sandbox runs; shares are of all requests.

    - `slow_seconds`: every answer comes this much later. `down`: every request is answered 503.
    - `error_burst`: the next so many requests are answered 500. `error_share`: as many of all.
    - `limit_share`: as many are answered 429 although the limit is kept.
    - `reset_share`: as many are accepted, and the connection then breaks off before the answer.
    - `rate_limit`: requests a second, 0 for no limit. `limit_headers`: what a 429 tells:
      "reset" (epoch seconds), "retry_after", "both" or "none".
    - `command_seconds`: how long a command waits for an online device.
    - `lose_webhooks`: none is sent. `webhook_seconds`: each is sent this much later.
    """

    slow_seconds: float = 0.0
    down: bool = False
    error_burst: int = 0
    error_share: float = 0.0
    limit_share: float = 0.0
    reset_share: float = 0.0
    rate_limit: float = 0.0
    limit_headers: str = "both"
    command_seconds: float = 0.05
    lose_webhooks: bool = False
    webhook_seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """Give every switch with its value."""
        return asdict(self)

    def set(self, switches: dict[str, Any]) -> None:
        """Flip several switches at once; a name or value that is wrong changes nothing."""
        kinds = {one.name: type(one.default) for one in fields(self)}
        for name, value in switches.items():
            if name not in kinds:
                raise SwitchError(f'there is no switch "{name}"')
            fits = float if kinds[name] is float else kinds[name]
            number = fits is float and isinstance(value, (int, float)) and value is not True
            if not number and type(value) is not fits:
                raise SwitchError(f'the switch "{name}" cannot be {value!r}')
        for name, value in switches.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Turn every switch back."""
        self.set(Faults().state())
