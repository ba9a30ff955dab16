"""The identity of one device, kept in a file that only its user can read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pgfleet.agent import state
from pgfleet.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Credentials:
    """Hold what enrolment gave: who the device is, its secret, and where its server lives."""

    device_id: int
    auth_id: str
    hostname: str
    topic: str
    device_secret: str = field(repr=False)
    url: str
    functions_url: str
    anon_key: str = field(repr=False)
    # The platforms that its fleet has moved away from.
    left: tuple[str, ...] = ()

    def without_secret(self) -> dict[str, object]:
        """Give the fields that may be shown."""
        shown = asdict(self)
        del shown["device_secret"], shown["anon_key"]
        return shown


def load(folder: Path) -> Credentials | None:
    """Read the credentials of a state folder; None when the device is not enrolled."""
    path = folder / state.CREDENTIALS
    if not path.exists():
        return None
    state.refuse_shared(path)
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"{path} cannot be understood",
            reason="credentials_damaged",
            hint="Move the file away and enrol again: pgfleet agent enroll --code CODE",
        ) from error


def save(folder: Path, credentials: Credentials) -> None:
    """Store the credentials, replacing those that are there."""
    state.write_private(
        folder / state.CREDENTIALS, json.dumps(asdict(credentials), indent=2) + "\n"
    )


def _parse(found: dict[str, object]) -> Credentials:
    texts = {
        name: str(found[name])
        for name in (
            "auth_id", "hostname", "topic", "device_secret", "url", "functions_url", "anon_key",
        )
    }  # fmt: skip
    left = found.get("left") or ()
    if not isinstance(left, list | tuple):
        raise TypeError("left")
    return Credentials(
        device_id=int(str(found["device_id"])), left=tuple(str(one) for one in left), **texts
    )
