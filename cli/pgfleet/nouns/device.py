"""pgfleet device: the devices of the fleet."""

from __future__ import annotations

import time
from typing import Annotated, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import json_value, open_database
from pgfleet.errors import Unavailable

app = options.Noun("Devices: list, enrol, tag, retire.")

Device = Annotated[str, typer.Argument(help="Host name or id.")]

_LIST: LiteralString = """
select
  d.id, d.hostname, d.status, d.platform, d.tags, d.timezone, d.last_seen, d.enrolled_at,
  (
    select count(*)
    from public.device_commands as c
    where c.device_id = d.id and c.status = 'pending'
  ) as pending,
  o.name as owner
from public.devices as d
join public.owners as o on o.id = d.owner_id
where (%(status)s::text is null or d.status = %(status)s)
  and (%(platform)s::text is null or lower(d.platform) = lower(%(platform)s))
  and d.tags @> %(tags)s::text[]
  and (%(search)s::text is null or d.hostname ilike '%%' || %(search)s || '%%')
  and (
    %(group_id)s::bigint is null
    or d.id in (select g.id from public.group_devices(%(group_id)s) as g)
  )
order by lower(d.hostname), d.id
limit %(limit)s
"""

_SHOW: LiteralString = """
select
  d.id, d.hostname, d.status, d.platform, d.timezone, d.tags, d.attributes, d.last_seen,
  d.enrolled_at, d.latitude, d.longitude, d.accuracy_m, d.located_at, d.auth_id,
  'device:' || d.auth_id as topic,
  array(
    select g.name
    from public.device_group_members as m
    join public.device_groups as g on g.id = m.group_id
    where m.device_id = d.id
    order by g.name
  ) as groups,
  (
    select coalesce(jsonb_object_agg(s.status, s.count), '{}')
    from (
      select c.status, count(*)
      from public.device_commands as c
      where c.device_id = d.id
      group by c.status
    ) as s
  ) as commands,
  o.name as owner, d.owner_id, d.created_at, d.updated_at
from public.devices as d
join public.owners as o on o.id = d.owner_id
where d.id = %(id)s
"""

# A name that no device has is waited for like one that has not enrolled.
_WAITED_FOR: LiteralString = """
select
  d.id, coalesce(d.hostname, w.name) as hostname, d.last_seen,
  coalesce(d.status = 'active' and d.last_seen is not null, false) as has_called
from (
  select unnest(%(devices)s::text[]) as name
  union
  select g.hostname from public.group_devices(%(group_id)s) as g
) as w
left join public.devices as d on lower(d.hostname) = lower(w.name) or d.id::text = w.name
order by lower(coalesce(d.hostname, w.name)), d.id
"""
_LOOK_SECONDS = 0.25


@app.command("list")
def list_devices(
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="Only in this group.")] = None,
    platform: Annotated[str | None, typer.Option(help="Only of this platform.")] = None,
    status: Annotated[str | None, typer.Option(help="active or retired.")] = None,
    search: Annotated[str | None, typer.Option(help="Only with this in the host name.")] = None,
    limit: options.Limit = 1000,
) -> None:
    """List devices with what waits for them.

    Example: pgfleet device list --tag school-7 --json
    """
    with open_database() as db:
        rows = db.rows(
            _LIST,
            {
                "tags": tag or [],
                "group_id": names.group_id(db, group) if group else None,
                "platform": platform,
                "status": status,
                "search": search,
                "limit": limit,
            },
        )
    output.show_rows(rows, ["id", "hostname", "status", "platform", "tags", "last_seen", "pending"])


@app.command()
def show(device: Device) -> None:
    """Show all that is known of one device.

    Example: pgfleet device show lab-01
    """
    with open_database() as db:
        output.show_row(db.row(_SHOW, {"id": names.device_id(db, device)}))


@app.command()
def wait(
    device: Annotated[
        list[str] | None, typer.Argument(help="Host names or ids, also of devices to come.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="All devices of this group.")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds after which it gives up.")] = 60.0,
) -> None:
    """Wait until devices have been seen, by an agent or by an MDM; ends with 1 if they are not.

    Example: pgfleet device wait pc-0001 pc-0002
    """
    if not device and group is None:
        raise typer.BadParameter("name devices, or a group with --group")
    end = time.monotonic() + timeout
    with open_database() as db:
        wanted = {
            "devices": device or [],
            "group_id": names.group_id(db, group) if group else None,
        }
        while True:
            rows = db.rows(_WAITED_FOR, wanted)
            missing = [row["hostname"] for row in rows if not row["has_called"]]
            db.commit()
            if not missing and rows:
                break
            if time.monotonic() > end:
                raise Unavailable(
                    f"not there after {timeout:g} s: {', '.join(missing) or 'the group is empty'}",
                    reason="devices_missing",
                    hint="Is an agent running for each? See: pgfleet agent status",
                )
            time.sleep(_LOOK_SECONDS)
    output.show_rows(rows, ["id", "hostname", "last_seen"])


@app.command()
def create(
    hostname: Annotated[str, typer.Argument(help="Host name, unique within its owner.")],
    platform: Annotated[str | None, typer.Option(help="linux, windows, macos, …")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA name of its time zone.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; repeatable.")] = None,
    attributes: Annotated[str, typer.Option(help="JSON object of anything else.")] = "{}",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Add a device before it has enrolled.

    Example: pgfleet device create lab-01 --platform linux --tag school-7
    """
    with open_database() as db:
        row = db.row(
            """
            insert into public.devices (hostname, platform, timezone, tags, attributes, owner_id)
            values (
              %(hostname)s, %(platform)s, %(timezone)s, %(tags)s, %(attributes)s, %(owner_id)s
            )
            returning id, hostname, status, platform, timezone, tags, attributes, owner_id
            """,
            {
                "hostname": hostname,
                "platform": platform,
                "timezone": timezone,
                "tags": tag or [],
                "attributes": json_value(inputs.json_object(attributes, "--attributes")),
                "owner_id": names.owner_id(db, owner),
            },
        )
    output.show_row(row)


@app.command("enroll-code")
def enroll_code(
    uses: Annotated[int, typer.Option(help="How many devices may use it.")] = 1,
    expires: Annotated[str, typer.Option(help="How long it is good for.")] = "1 day",
    tag: Annotated[list[str] | None, typer.Option(help="A tag for the devices.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group for the devices.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print the code alone, for a script.")
    ] = False,
) -> None:
    """Make a code with which new devices enrol; it is shown this once.

    Example: pgfleet device enroll-code --uses 30 --expires "2 days" --tag school-7
    """
    with open_database() as db:
        row = db.row(
            """
            select r.id, r.code, r.expires_at, r.max_uses
            from jsonb_to_record(
              public.create_enrollment_code(
                p_max_uses => %(uses)s,
                p_expires_in => %(expires)s::interval,
                p_tags => %(tags)s::text[],
                p_group_ids => %(group_ids)s::bigint[]
              )
            ) as r (id bigint, code text, expires_at timestamptz, max_uses int)
            """,
            {
                "uses": uses,
                "expires": expires,
                "tags": tag or [],
                "group_ids": names.group_ids(db, group),
            },
        )
    if plain:
        output.show_text(row["code"])
        return
    output.show_row(row)
    output.say(f"On the device: pgfleet agent enroll --code {row['code']}")


@app.command()
def codes(limit: options.Limit = 100) -> None:
    """List enrolment codes, the newest first; the codes themselves are not kept.

    Example: pgfleet device codes
    """
    with open_database() as db:
        rows = db.rows(
            """
            select
              c.id,
              case
                when c.revoked_at is not null then 'revoked'
                when c.used_count >= c.max_uses then 'used up'
                when c.expires_at <= now() then 'expired'
                else 'good'
              end as state,
              c.used_count, c.max_uses, d.hostname as only_for, c.tags, c.group_ids, c.expires_at,
              c.created_at
            from public.enrollment_codes as c
            left join public.devices as d on d.id = c.device_id
            order by c.id desc
            limit %(limit)s
            """,
            {"limit": limit},
        )
    output.show_rows(rows)


@app.command("revoke-code")
def revoke_code(
    code: Annotated[int, typer.Argument(help="Id of the code; see pgfleet device codes.")],
) -> None:
    """Make an enrolment code useless; devices that used it stay.

    Example: pgfleet device revoke-code 3
    """
    with open_database() as db:
        db.rows("select public.revoke_enrollment_code(%(id)s)", {"id": code})
    output.say(f"Code {code} is revoked.")


@app.command()
def rekey(device: Device) -> None:
    """Make a code with which this very device enrols again.

    Example: pgfleet device rekey lab-01
    """
    with open_database() as db:
        row = db.row(
            """
            select r.id, r.code, r.expires_at, r.max_uses
            from jsonb_to_record(public.rekey_device(%(id)s)) as
              r (id bigint, code text, expires_at timestamptz, max_uses int)
            """,
            {"id": names.device_id(db, device)},
        )
    output.show_row(row)
    output.say("Its former secret is void once the code is used.")


@app.command()
def retire(device: Device, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Take a device out of service: its secret is void at once, its history stays.

    Example: pgfleet device retire lab-01 --yes
    """
    with open_database() as db:
        found = names.device_id(db, device)
        if dry_run:
            output.show_row(db.row(_SHOW, {"id": found}))
            output.say("Would be retired; what waits for it would be cancelled.")
            return
        db.commit()
        output.confirm(f"Retire device {device} and cancel what waits for it?", yes=yes)
        row = db.row(
            "select r.id, r.hostname, r.status from public.retire_device(%(id)s) as r",
            {"id": found},
        )
    output.show_row(row)


@app.command()
def tag(
    device: Device,
    add: Annotated[list[str] | None, typer.Option(help="A tag to add; repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A tag to take away.")] = None,
) -> None:
    """Add and remove tags of a device.

    Example: pgfleet device tag lab-01 --add school-7 --remove spare
    """
    with open_database() as db:
        row = db.row(
            """
            update public.devices as d
            set tags = array(
              select distinct t.tag
              from unnest(d.tags || %(add)s::text[]) as t (tag)
              where t.tag <> all (%(remove)s::text[])
              order by t.tag
            )
            where d.id = %(id)s
            returning d.id, d.hostname, d.tags
            """,
            {"id": names.device_id(db, device), "add": add or [], "remove": remove or []},
        )
    output.show_row(row)
