"""The demo school: loading it, telling what is in it, and signing its people in."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any, LiteralString
from uuid import UUID

import jwt

from pgfleet.database import Database
from pgfleet.errors import NotFound
from pgfleet.schema.sources import sql_folder
from pgfleet_local.auth.users import UserError, create_user
from pgfleet_local.settings import StackSettings

# As in db/seed/demo.sql, where each of them has other permissions.
PEOPLE = {
    "ada": "ada00000-0000-4000-8000-000000000001",
    "ben": "be000000-0000-4000-8000-000000000002",
    "eve": "e0e00000-0000-4000-8000-000000000003",
}
# Known to everybody who reads this: for the local platform, which only this machine reaches.
PASSWORD = "demo-school"
_TOKEN_SECONDS = 12 * 3600

_NAME = "Demo school"


def load(db: Database) -> bool:
    """Load the school and tell whether it is new; where it is there, nothing changes."""
    is_new = not db.find("owner_list", {"name": _NAME}, columns=("id",))
    db.script((sql_folder() / "seed" / "demo.sql").read_text(encoding="utf-8"))
    return is_new


def open_accounts(settings: StackSettings) -> None:
    """Let the people sign in at a local platform; who has an account already keeps it."""
    for person, user in PEOPLE.items():
        with suppress(UserError):
            create_user(settings.admin_url, address(person), PASSWORD, UUID(user))


def address(person: str) -> str:
    """Give the e-mail address of one of the people."""
    return f"{person.lower()}@school.example"


def contents(db: Database) -> list[dict[str, Any]]:
    """List what the school has, with the ids that examples use."""
    school = db.find("owner_list", {"name": _NAME}, columns=("id",), order=("created_at",))[0]["id"]
    people = {user: person for person, user in PEOPLE.items()}

    def read(view: LiteralString, *columns: LiteralString) -> list[dict[str, Any]]:
        return db.find(view, {"owner_id": school}, columns=columns, order=(columns[0],))

    return [
        _line("owner", school, _NAME),
        *(
            _line("device", d["id"], d["hostname"], d["platform"], d["timezone"])
            for d in read("device_list", "id", "hostname", "platform", "timezone")
        ),
        *(
            _line("group", g["id"], g["name"], json.dumps(g["selector"]) if g["selector"] else None)
            for g in read("group_list", "id", "name", "selector")
        ),
        *(
            _line("calendar", c["id"], c["name"], c["description"])
            for c in read("blackout_list", "id", "name", "description")
        ),
        *(
            _line("schedule", s["id"], s["name"], s["action_type"])
            for s in read("schedule_list", "id", "name", "action_type", "recurrence_type")
            if s["recurrence_type"] != "once"
        ),
        *(
            _line(
                "person",
                m["user_id"],
                people[str(m["user_id"])],
                address(people[str(m["user_id"])]),
                *m["permissions"],
            )
            for m in read("owner_members", "user_id", "permissions")
            if str(m["user_id"]) in people
        ),
    ]


def _line(what: str, row_id: object, name: str, *more: str | None) -> dict[str, Any]:
    told = ", ".join(word for word in more if word)
    return {"what": what, "id": str(row_id), "name": name, "more": told}


def token(person: str) -> str:
    """Sign one of the people in, as the local platform would."""
    subject = PEOPLE.get(person.lower())
    if subject is None:
        raise NotFound(
            f'the demo school has no "{person}"',
            reason="person_not_found",
            hint=f"Its people are {', '.join(PEOPLE)}.",
        )
    now = int(time.time())
    claims = {
        "iss": "supabase-local",
        "aud": "authenticated",
        "role": "authenticated",
        "sub": subject,
        "email": address(person),
        "iat": now,
        "exp": now + _TOKEN_SECONDS,
    }
    return jwt.encode(claims, StackSettings.from_environment().jwt_secret, algorithm="HS256")
