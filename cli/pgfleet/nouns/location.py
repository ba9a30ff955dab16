"""pgfleet location: places on the map, who is there, and what coming and going brings about."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput

app = options.Noun("Locations: places, who is there, and what follows.")

Location = Annotated[str, typer.Argument(help="Name or id of the location.")]
Owner = Annotated[str | None, typer.Option(help="Name or id of the owner.")]

_LISTED = (
    *("id", "name", "kind", "latitude", "longitude", "radius_m", "corners", "inside", "policies"),
    *("owner", "created_at"),
)
_CREATED = (
    *("id", "name", "kind", "latitude", "longitude", "radius_m", "polygon", "hysteresis_m"),
    *("min_dwell", "owner_id"),
)
_POLICY = (
    *("id", "name", "location_id", "event", "action_type", "payload", "group_id", "selector"),
    *("priority", "owner_id"),
)


@app.command("list")
def list_locations(limit: options.Limit = 1000) -> None:
    """List locations with how many devices are inside.

    Example: pgfleet location list
    """
    with open_database() as db:
        rows = db.find("location_list", columns=_LISTED, order=("name", "id"), limit=limit)
    output.show_rows(
        rows,
        ["id", "name", "kind", "radius_m", "corners", "inside", "policies"],
        spare=("corners", "kind"),
    )


@app.command()
def show(location: Location) -> None:
    """Show a location, the devices inside and its policies.

    Example: pgfleet location show school-7
    """
    with open_database() as db:
        row = _location(db, location)
        policies = db.find("location_policy_list", {"location_id": row["id"]}, order=("id",))
    del row["corners"]
    row["inside"] = row.pop("hostnames_inside")
    row["policies"] = [
        f"{p['event']}: {p['action_type']} {output.as_text(p['payload'])} ({p['id']})"
        for p in policies
    ]
    output.show_row(row)


@app.command(changes=True)
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
        row = db.insert(
            "locations",
            {
                "owner_id": names.owner_id(db, owner),
                "name": name,
                "kind": "polygon" if at is None else "circle",
                "latitude": latitude,
                "longitude": longitude,
                "radius_m": radius,
                "polygon": None if corners is None else json_value(corners),
                "hysteresis_m": hysteresis,
                "min_dwell": dwell,
            },
            *_CREATED,
        )
    output.show_row(row)


@app.command(changes=True)
def delete(location: Location, yes: options.Yes = False) -> None:
    """Delete a location with its policies; what happened there stays in the history.

    Example: pgfleet location delete school-7 --yes
    """
    with open_database() as db:
        found = _location(db, location)
        row = {key: found[key] for key in ("id", "name", "kind")}
        db.commit()
        output.confirm(f"Delete location {row['name']}?", yes=yes)
        db.touches("location", row["id"])
        db.delete("locations", row["id"], "id")
    output.show_row(row)
    output.did("Deleted.")


@app.command(changes=True)
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
        place = _location(db, location) if location else {"id": None, "owner_id": None}
        row = db.insert(
            "location_policies",
            {
                "owner_id": names.owner_id(db, owner) or place["owner_id"],
                "name": name,
                "location_id": place["id"],
                "event": on,
                "action_type": action,
                "payload": json_value(inputs.json_object(payload, "--payload")),
                "group_id": names.group_id(db, group) if group else None,
                "selector": None if matches is None else json_value(matches),
                "priority": priority,
            },
            *_POLICY,
        )
        db.touches("location_policy", row["id"])
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
        rows = db.find(
            "location_policy_list", {"location_id": chosen}, order=("location", "id"), limit=limit
        )
    output.show_rows(
        rows,
        [
            *("id", "location", "event", "action_type", "payload", "group_name", "acted"),
            "last_error",
        ],
        spare=("last_error", "group_name", "payload"),
    )


@app.command("delete-policy", changes=True)
def delete_policy(policy_id: Annotated[int, typer.Argument(help="Id of the policy.")]) -> None:
    """Delete a policy; the schedules that it has made stay.

    Example: pgfleet location delete-policy 7
    """
    with open_database() as db:
        db.touches("location_policy", policy_id)
        rows = db.delete(
            "location_policies", policy_id, "id", "event", "action_type", "location_id"
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
        found = names.device_id(db, device)
        row = names.found(db.find("device_location_list", {"id": found}), "device", device)
        row["events"] = db.find(
            "location_events",
            {"device_id": found},
            columns=("event", "location_name", "at"),
            order=("-id",),
            limit=limit,
        )
    output.show_row(row)


def _location(db: Database, text: str) -> dict[str, Any]:
    """Find a location by name or id; a name wins over an id."""
    found = db.value("location_id", p_name=text)
    return db.find("location_list", {"id": found})[0]


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
