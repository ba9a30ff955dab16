"""People write a name or an id; the database wants an id."""

from __future__ import annotations

from typing import Any, LiteralString, overload

from pgfleet.database import Database
from pgfleet.errors import Conflict, NotFound

_DEVICE: LiteralString = """
select d.id, d.hostname as name
from public.devices as d
where lower(d.hostname) = lower(%(text)s) or d.id::text = %(text)s
order by (lower(d.hostname) = lower(%(text)s)) desc, d.id
"""

_GROUP: LiteralString = """
select g.id, g.name
from public.device_groups as g
where lower(g.name) = lower(%(text)s) or g.id::text = %(text)s
order by (lower(g.name) = lower(%(text)s)) desc, g.id
"""

_SCHEDULE: LiteralString = """
select s.id, s.name
from public.schedules as s
where lower(s.name) = lower(%(text)s) or s.id::text = %(text)s
order by (lower(s.name) = lower(%(text)s)) desc, s.id
"""

_INTEGRATION: LiteralString = """
select i.id, i.name
from public.device_integrations as i
where lower(i.name) = lower(%(text)s) or i.id::text = %(text)s
order by (lower(i.name) = lower(%(text)s)) desc, i.id
"""

_OWNER: LiteralString = """
select o.id, o.name
from public.owners as o
where lower(o.name) = lower(%(text)s) or o.id::text = lower(%(text)s)
order by (lower(o.name) = lower(%(text)s)) desc, o.id
"""

# By name, or by an id that is no number; for a device only what its own MDM has.
_PROFILE: LiteralString = """
with known as (
  select p.external_id as id, p.name, p.is_managed, p.status, p.error_message, p.integration_id
  from public.profiles as p
  union
  -- Some MDMs keep no list, and their profiles are described here.
  select k.id, k.id, false, 'uploaded', null, i.id
  from public.device_integrations as i
  cross join lateral jsonb_object_keys(
    case jsonb_typeof(i.settings -> 'profiles')
      when 'object' then i.settings -> 'profiles'
      else '{}'
    end
  ) as k(id)
)
select k.*, i.name as integration
from known as k
join public.device_integrations as i on i.id = k.integration_id and i.status <> 'disabled'
where (lower(k.name) = lower(%(text)s) or k.id = %(text)s)
  and (
    %(device_id)s::bigint is null
    or k.integration_id in (
      select l.integration_id
      from public.device_links as l
      where l.device_id = %(device_id)s and l.left_at is null
    )
    or not exists (
      select 1
      from public.device_links as l
      where l.device_id = %(device_id)s and l.left_at is null
    )
  )
order by i.id, k.is_managed desc, k.id
"""


def device_id(db: Database, text: str) -> int:
    """Find a device by host name, in any case, or by id."""
    return int(_only(db.rows(_DEVICE, {"text": text}), "device", text))


def group_id(db: Database, text: str) -> int:
    """Find a group by name or id."""
    return int(_only(db.rows(_GROUP, {"text": text}), "group", text))


def schedule_id(db: Database, text: str) -> int:
    """Find a schedule by name or id."""
    return int(_only(db.rows(_SCHEDULE, {"text": text}), "schedule", text))


@overload
def integration_id(db: Database, text: str) -> int: ...


@overload
def integration_id(db: Database, text: None) -> None: ...


def integration_id(db: Database, text: str | None) -> int | None:
    """Find an integration by name or id; none named means that there is only one, or any."""
    if text is None:
        return None
    return int(_only(db.rows(_INTEGRATION, {"text": text}), "integration", text))


def owner_id(db: Database, text: str | None) -> str | None:
    """Find an owner by name or uuid; none named means the database decides."""
    if text is None:
        return None
    return str(_only(db.rows(_OWNER, {"text": text}), "owner", text))


def profile_id(db: Database, text: str, device_id: int | None = None) -> str:
    """Give the MDM's id of a profile: digits are that id, anything else is a name.

    With a device its MDM decides; without one the name must be of one profile only.
    """
    if text.isascii() and text.isdecimal():
        return text
    rows = db.rows(_PROFILE, {"text": text, "device_id": device_id})
    # In one MDM, what was uploaded from here wins over its namesakes.
    managed = {row["integration_id"] for row in rows if row["is_managed"]}
    rows = [row for row in rows if row["is_managed"] or row["integration_id"] not in managed]
    if len(rows) > 1:
        where = ", ".join(f"{row['id'] or 'not uploaded'} ({row['integration']})" for row in rows)
        raise Conflict(
            f'profile "{text}" is ambiguous: {where}',
            reason="profile_ambiguous",
            hint="Name the id",
        )
    row = known_profile(rows, text)
    if row["id"] is None:
        said = ": ".join(part for part in (row["status"], row["error_message"]) if part)
        raise Conflict(
            f'profile "{text}" is not in the MDM ({said})',
            reason="profile_not_uploaded",
            hint="Look how it is with: pgfleet profile available",
        )
    return str(row["id"])


def known_profile(rows: list[dict[str, Any]], text: str) -> dict[str, Any]:
    """Give the only profile of the catalogue, or say that there is none."""
    if not rows:
        raise NotFound(
            f'profile "{text}" was not found',
            reason="profile_not_found",
            hint="List what the MDMs have with: pgfleet profile available",
        )
    return rows[0]


def device_ids(db: Database, texts: list[str] | None) -> list[int]:
    """Find several devices."""
    return [device_id(db, text) for text in texts or []]


def group_ids(db: Database, texts: list[str] | None) -> list[int]:
    """Find several groups."""
    return [group_id(db, text) for text in texts or []]


def found(rows: list[dict[str, Any]], kind: str, text: object) -> dict[str, Any]:
    """Give the only row, or say that there is none."""
    if not rows:
        raise NotFound(
            f'{kind} "{text}" was not found',
            reason=f"{kind}_not_found",
            hint=f"List what there is with: pgfleet {kind} list",
        )
    return rows[0]


def _only(rows: list[dict[str, Any]], kind: str, text: str) -> Any:
    """Choose the row that was meant; a name wins over an id, but not over another name."""
    named = [row for row in rows if str(row["name"]).lower() == text.lower()]
    if len(named) > 1:
        raise Conflict(
            f'{kind} "{text}" is ambiguous: ids {", ".join(str(row["id"]) for row in named)}',
            reason=f"{kind}_ambiguous",
            hint="Name the id",
        )
    return found(rows, kind, text)["id"]
