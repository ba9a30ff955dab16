"""The demo school: loading it, telling what is in it, and signing its people in."""

from __future__ import annotations

import time
from typing import Any, LiteralString

import jwt

from pgfleet.database import Database
from pgfleet.errors import NotFound
from pgfleet.schema.sources import sql_folder
from pgfleet_local.settings import StackSettings

# As in db/seed/demo.sql, where each of them has other permissions.
PEOPLE = {
    "ada": "ada00000-0000-4000-8000-000000000001",
    "ben": "be000000-0000-4000-8000-000000000002",
    "eve": "e0e00000-0000-4000-8000-000000000003",
}
_TOKEN_SECONDS = 12 * 3600

_IS_THERE: LiteralString = """
select exists (select from public.owners as o where o.name = 'Demo school') as is_there
"""

_CONTENTS: LiteralString = """
with school as (
  select o.id from public.owners as o where o.name = 'Demo school' order by o.created_at limit 1
)
select c.what, c.id, c.name, c.more
from (
  select 1 as place, 'owner' as what, o.id::text, o.name, '' as more, 0::bigint as number
  from public.owners as o
  where o.id in (select s.id from school as s)
  union all
  select 2, 'device', d.id::text, d.hostname, concat_ws(', ', d.platform, d.timezone), d.id
  from public.devices as d
  where d.owner_id in (select s.id from school as s)
  union all
  select 3, 'group', g.id::text, g.name, g.selector::text, g.id
  from public.device_groups as g
  where g.owner_id in (select s.id from school as s)
  union all
  select 4, 'calendar', b.id::text, b.name, b.description, b.id
  from public.blackout_calendars as b
  where b.owner_id in (select s.id from school as s)
  union all
  select 5, 'schedule', t.id::text, t.name, t.action_type, t.id
  from public.schedules as t
  where t.owner_id in (select s.id from school as s) and t.recurrence_type <> 'once'
  union all
  select 6, 'person', m.user_id::text, p.name, array_to_string(m.permissions, ', '), p.place
  from public.owner_members as m
  join unnest(%(names)s::text[], %(ids)s::uuid[]) with ordinality as p (name, id, place)
    on p.id = m.user_id
  where m.owner_id in (select s.id from school as s)
) as c
order by c.place, c.number
"""


def load(db: Database) -> bool:
    """Load the school and tell whether it is new; where it is there, nothing changes."""
    is_new = not db.row(_IS_THERE)["is_there"]
    db.script((sql_folder() / "seed" / "demo.sql").read_text(encoding="utf-8"))
    return is_new


def contents(db: Database) -> list[dict[str, Any]]:
    """List what the school has, with the ids that examples use."""
    return db.rows(_CONTENTS, {"names": list(PEOPLE), "ids": list(PEOPLE.values())})


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
        "email": f"{person.lower()}@school.example",
        "iat": now,
        "exp": now + _TOKEN_SECONDS,
    }
    return jwt.encode(claims, StackSettings.from_environment().jwt_secret, algorithm="HS256")
