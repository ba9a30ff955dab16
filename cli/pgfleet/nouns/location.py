"""pgfleet location: places on the map, who is there, and what coming and going brings about."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import Conflict, InvalidInput

app = options.Noun("Locations: places, who is there, and what follows.")

Location = Annotated[str, typer.Argument(help="Name or id of the location.")]
Owner = Annotated[str | None, typer.Option(help="Name or id of the owner.")]

_LIST: LiteralString = """
select
  l.id, l.name, l.kind, l.latitude, l.longitude, l.radius_m,
  jsonb_array_length(l.polygon) as corners,
  (
    select count(*) from public.device_places as p where p.location_id = l.id and p.is_inside
  ) as inside,
  (select count(*) from public.location_policies as q where q.location_id = l.id) as policies,
  o.name as owner, l.created_at
from public.locations as l
join public.owners as o on o.id = l.owner_id
order by lower(l.name), l.id
limit %(limit)s
"""

_SHOW: LiteralString = """
select
  l.id, l.name, l.kind, l.latitude, l.longitude, l.radius_m, l.polygon, l.hysteresis_m,
  l.min_dwell,
  array(
    select d.hostname
    from public.device_places as p
    join public.devices as d on d.id = p.device_id
    where p.location_id = l.id and p.is_inside
    order by d.hostname
  ) as inside,
  array(
    select concat_ws(' ', q.event || ':', q.action_type, q.payload, '(' || q.id || ')')
    from public.location_policies as q
    where q.location_id = l.id
    order by q.id
  ) as policies,
  o.name as owner, l.owner_id, l.created_at, l.updated_at
from public.locations as l
join public.owners as o on o.id = l.owner_id
where l.id = %(id)s
"""

_POLICIES: LiteralString = """
select
  q.id, l.name as location, q.event, q.action_type, q.payload, g.name as group, q.selector,
  q.priority, q.is_enabled, q.name,
  (select count(*) from public.location_actions as a where a.policy_id = q.id) as acted,
  (
    select a.error_message
    from public.location_actions as a
    where a.policy_id = q.id
    order by a.event_id desc
    limit 1
  ) as last_error
from public.location_policies as q
left join public.locations as l on l.id = q.location_id
left join public.device_groups as g on g.id = q.group_id
where %(id)s::bigint is null or q.location_id = %(id)s
order by l.name nulls last, q.id
limit %(limit)s
"""

_WHERE: LiteralString = """
select
  d.id, d.hostname, d.latitude, d.longitude, d.accuracy_m, d.located_at,
  case
    when d.located_at is null then 'never reported'
    when p.lost_at is not null then 'unknown since ' || p.lost_at
    else 'known'
  end as position,
  array(
    select l.name
    from public.device_places as x
    join public.locations as l on l.id = x.location_id
    where x.device_id = d.id and x.is_inside
    order by l.name
  ) as inside,
  p.is_outside_all as outside_all,
  (
    select coalesce(jsonb_agg(to_jsonb(e) order by e.at desc), '[]')
    from (
      select e.event, e.location_name as location, e.at
      from public.location_events as e
      where e.device_id = d.id
      order by e.id desc
      limit %(limit)s
    ) as e
  ) as events
from public.devices as d
left join public.device_positions as p on p.device_id = d.id
where d.id = %(id)s
"""


@app.command("list")
def list_locations(limit: options.Limit = 1000) -> None:
    """List locations with how many devices are inside.

    Example: pgfleet location list
    """
    with open_database() as db:
        rows = db.rows(_LIST, {"limit": limit})
    output.show_rows(rows, ["id", "name", "kind", "radius_m", "corners", "inside", "policies"])


@app.command()
def show(location: Location) -> None:
    """Show a location, the devices inside and its policies.

    Example: pgfleet location show school-7
    """
    with open_database() as db:
        output.show_row(db.row(_SHOW, {"id": _location(db, location)["id"]}))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name, unique within its owner.")],
    at: Annotated[str | None, typer.Option(help="LATITUDE,LONGITUDE of a circle's centre.")] = None,
    radius: Annotated[float | None, typer.Option(help="Of a circle, in metres.")] = None,
    polygon: Annotated[
        str | None, typer.Option(help="JSON list of pairs of latitude and longitude, @FILE, or -.")
    ] = None,
    hysteresis: Annotated[
        float | None, typer.Option(help="Metres beyond the border at which a device has left.")
    ] = None,
    dwell: Annotated[
        str | None, typer.Option(help="How long a device must be there, such as 2 minutes.")
    ] = None,
    owner: Owner = None,
) -> None:
    """Create a location: a circle, or a polygon.

    Example: pgfleet location create school-7 --at 52.52,13.405 --radius 150
    """
    if (at is None) == (polygon is None):
        raise InvalidInput(
            "a location is either --at with --radius, or --polygon",
            reason="location_invalid",
            hint="Example: --at 52.52,13.405 --radius 150",
        )
    latitude, longitude = _coordinates(at) if at is not None else (None, None)
    corners = inputs.json_text(polygon, "--polygon")
    with open_database() as db:
        row = db.row(
            """
            insert into public.locations as l (
              owner_id, name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell
            )
            values (
              %(owner_id)s, %(name)s, %(kind)s, %(latitude)s, %(longitude)s, %(radius)s,
              %(polygon)s, coalesce(%(hysteresis)s, 25), coalesce(%(dwell)s::interval, '60 seconds')
            )
            returning
              l.id, l.name, l.kind, l.latitude, l.longitude, l.radius_m, l.polygon,
              l.hysteresis_m, l.min_dwell, l.owner_id
            """,
            {
                "owner_id": names.owner_id(db, owner),
                "name": name,
                "kind": "polygon" if at is None else "circle",
                "latitude": latitude,
                "longitude": longitude,
                "radius": radius,
                "polygon": None if corners is None else json_value(corners),
                "hysteresis": hysteresis,
                "dwell": dwell,
            },
        )
    output.show_row(row)


@app.command()
def delete(location: Location, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Delete a location with its policies; what happened there stays in the history.

    Example: pgfleet location delete school-7 --yes
    """
    with open_database() as db:
        row = _location(db, location)
        if not dry_run:
            db.commit()
            output.confirm(f"Delete location {row['name']}?", yes=yes)
            db.row("delete from public.locations where id = %(id)s returning id", {"id": row["id"]})
    output.show_row(row)
    output.say("Would be deleted." if dry_run else "Deleted.")


@app.command()
def policy(
    action: Annotated[str, typer.Argument(help="What the device gets: a command type.")],
    on: Annotated[str, typer.Option(help="enter, leave, outside_all or inside_any.")],
    location: Annotated[
        str | None, typer.Option(help="Of which location; none for outside_all and inside_any.")
    ] = None,
    payload: Annotated[str, typer.Option(help="JSON object, @FILE, or -.")] = "{}",
    group: Annotated[str | None, typer.Option(help="Only for devices of this group.")] = None,
    selector: Annotated[
        str | None, typer.Option(help="Only for devices that this JSON selector matches.")
    ] = None,
    name: Annotated[str, typer.Option(help="What its schedules are called.")] = "",
    priority: Annotated[int, typer.Option(help="-100 to 100; higher goes first.")] = 0,
    owner: Owner = None,
) -> None:
    """Say what happens when a device enters or leaves a location, or is outside of all.

    Example: pgfleet location policy push_profile --on enter --location school-7
    --payload '{"profile_id": "12345"}'
    """
    matches = inputs.json_object(selector, "--selector")
    with open_database() as db:
        row = db.row(
            """
            insert into public.location_policies as q (
              owner_id, name, location_id, event, action_type, payload, group_id, selector, priority
            )
            values (
              coalesce(
                %(owner_id)s::uuid,
                (select l.owner_id from public.locations as l where l.id = %(location_id)s)
              ),
              %(name)s, %(location_id)s, %(event)s, %(action)s, %(payload)s, %(group_id)s,
              %(selector)s, %(priority)s
            )
            returning
              q.id, q.name, q.location_id, q.event, q.action_type, q.payload, q.group_id,
              q.selector, q.priority, q.owner_id
            """,
            {
                "owner_id": names.owner_id(db, owner),
                "name": name,
                "location_id": _location(db, location)["id"] if location else None,
                "event": on,
                "action": action,
                "payload": json_value(inputs.json_object(payload, "--payload")),
                "group_id": names.group_id(db, group) if group else None,
                "selector": None if matches is None else json_value(matches),
                "priority": priority,
            },
        )
    output.show_row(row)


@app.command()
def policies(
    location: Annotated[str | None, typer.Option(help="Only those of this location.")] = None,
    limit: options.Limit = 1000,
) -> None:
    """List the policies of locations, with how often each has acted.

    Example: pgfleet location policies --location school-7
    """
    with open_database() as db:
        chosen = _location(db, location)["id"] if location else None
        rows = db.rows(_POLICIES, {"id": chosen, "limit": limit})
    output.show_rows(
        rows, ["id", "location", "event", "action_type", "payload", "group", "acted", "last_error"]
    )


@app.command("delete-policy")
def delete_policy(policy_id: Annotated[int, typer.Argument(help="Id of the policy.")]) -> None:
    """Delete a policy; the schedules that it has made stay.

    Example: pgfleet location delete-policy 7
    """
    with open_database() as db:
        rows = db.rows(
            """
            delete from public.location_policies as q
            where q.id = %(id)s
            returning q.id, q.event, q.action_type, q.location_id
            """,
            {"id": policy_id},
        )
    output.show_row(names.found(rows, "location policy", policy_id))


@app.command()
def where(
    device: Annotated[str, typer.Argument(help="Host name or id.")],
    limit: Annotated[int, typer.Option(min=1, help="How many events to show at most.")] = 10,
) -> None:
    """Show where a device is, and where it came and went.

    Example: pgfleet location where lab-01
    """
    with open_database() as db:
        output.show_row(db.row(_WHERE, {"id": names.device_id(db, device), "limit": limit}))


def _location(db: Database, text: str) -> dict[str, Any]:
    """Find a location by name or id; a name wins over an id."""
    rows = db.rows(
        """
        select l.id, l.name, l.kind
        from public.locations as l
        where lower(l.name) = lower(%(text)s) or l.id::text = %(text)s
        order by (lower(l.name) = lower(%(text)s)) desc, l.id
        """,
        {"text": text},
    )
    named = [row["id"] for row in rows if row["name"].lower() == text.lower()]
    if len(named) > 1:
        raise Conflict(
            f'location "{text}" is ambiguous: ids {", ".join(map(str, named))}',
            reason="location_ambiguous",
            hint="Name the id",
        )
    return names.found(rows, "location", text)


def _coordinates(text: str) -> tuple[float, float]:
    """Read LATITUDE,LONGITUDE; the database knows what is on earth."""
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"--at: {text} is not LATITUDE,LONGITUDE",
            reason="coordinates_invalid",
            hint="Example: --at 52.52,13.405",
        ) from error
    return latitude, longitude
