"""Who looks: the claims and the role with which each transaction of theirs begins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PERMISSIONS = ("view", "operate", "manage", "destructive", "admin")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who looks; two with the same claims and the same end are the same."""

    name: str
    claims: str
    role: str = "authenticated"
    # When the token that says so ends, in seconds since 1970; never, where there is none.
    ends_at: float | None = None

    @property
    def is_operator(self) -> bool:
        """Tell whether it is the platform's operator, who may do everything."""
        return self.role == "service_role"


def person(claims: dict[str, Any]) -> Viewer:
    """Give the viewer of a verified token; whatever role it names, it is a person's."""
    known = {"sub": str(claims["sub"]), "role": "authenticated"}
    if isinstance(claims.get("email"), str):
        known["email"] = claims["email"]
    return Viewer(
        name=known.get("email") or known["sub"],
        claims=json.dumps(known),
        ends_at=float(claims["exp"]) if "exp" in claims else None,
    )


OPERATOR = Viewer(name="operator", claims='{"role": "service_role"}', role="service_role")
