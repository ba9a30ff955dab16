"""pgfleet device: the devices of the fleet."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import NotAllowed
from pgfleet.statements import among, contains, holding, same, since

app = options.Noun("Devices: list, enrol, tag, retire.")

Device = Annotated[str, typer.Argument(help="Host name or id.", autocompletion=completion.devices)]

_LISTED = (
    *("id", "hostname", "status", "platform", "tags", "timezone", "last_seen", "enrolled_at"),
    *("pending", "owner"),
)
_CREATED = (
    *("id", "hostname", "status", "platform", "timezone", "tags", "attributes", "owner_id"),
)
_CODE = ("id", "code", "expires_at", "max_uses")


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
        members = None
        if group is not None:
            found = db.call("group_devices", "id", p_group_id=names.group_id(db, group))
            members = [row["id"] for row in found]
        wanted = {
            "tags": holding(tag),
            "id": among(members),
            "platform": same(platform),
            "status": status,
            "hostname": contains(search),
        }
        rows = db.find(
            "device_list", wanted, columns=_LISTED, order=("hostname", "id"), limit=limit
        )
    output.show_rows(
        rows,
        ["id", "hostname", "status", "platform", "tags", "last_seen", "pending"],
        spare=("tags", "platform"),
    )


@app.command()
def show(device: Device) -> None:
    """Show all that is known of one device.

    Example: pgfleet device show lab-01
    """
    with open_database() as db:
        output.show_row(_read(db, names.device_id(db, device)))


@app.command()
def clones(limit: options.Limit = 1000) -> None:
    """List devices whose secret two agents use in turn, as a copied disk does.

    Re-key such a device, and enrol one of the two machines anew.

    Example: pgfleet device clones
    """
    with open_database() as db:
        rows = db.find(
            "device_list",
            {"clone_seen_at": since("epoch")},
            columns=("id", "hostname", "owner", "clone_seen_at", "last_seen"),
            order=("clone_seen_at", "id"),
            limit=limit,
        )
    output.show_rows(rows, ["id", "hostname", "owner", "clone_seen_at", "last_seen"])


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
    with open_database() as db:
        group_id = names.group_id(db, group) if group else None

        def look() -> tuple[list[dict[str, Any]], str, bool]:
            rows = db.call("expected_devices", p_names=device, p_group_id=group_id)
            db.commit()
            missing = [row["hostname"] for row in rows if not row["has_called"]]
            word = f"waiting for {', '.join(missing)}" if missing else "all there"
            return rows, word if rows else "the group is empty", bool(rows) and not missing

        rows = output.follow(
            look,
            timeout=timeout,
            what="devices",
            reason="devices_missing",
            goes_on="Is an agent running for each? See: pgfleet agent status",
        )
    output.show_rows(rows, ["id", "hostname", "last_seen"])


@app.command(changes=True)
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
        row = db.insert(
            "devices",
            {
                "hostname": hostname,
                "platform": platform,
                "timezone": timezone,
                "tags": tag,
                "attributes": json_value(inputs.json_object(attributes, "--attributes")),
                "owner_id": names.owner_id(db, owner),
            },
            *_CREATED,
        )
        db.touches("device", row["id"])
    output.show_row(row)


@app.command("enroll-code", changes=True)
def enroll_code(
    uses: Annotated[int, typer.Option(help="How many devices may use it.")] = 1,
    expires: Annotated[str, typer.Option(help="How long it is good for.")] = "1 day",
    tag: Annotated[list[str] | None, typer.Option(help="A tag for the devices.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group for the devices.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print the code alone, for a script.")
    ] = False,
) -> None:
    """Make a code with which new devices enrol; it is shown this once.

    Example: pgfleet device enroll-code --uses 30 --expires "2 days" --tag school-7
    """
    with open_database() as db:
        made = db.value(
            "create_enrollment_code",
            p_max_uses=uses,
            p_expires_in=expires,
            p_tags=tag,
            p_group_ids=names.group_ids(db, group),
            p_owner_id=names.owner_id(db, owner),
        )
    row = {key: made[key] for key in _CODE}
    if plain:
        output.show_text(row["code"])
        return
    output.show_row(row)
    output.did(f"On the device: pgfleet agent enroll --code {row['code']}")


@app.command()
def codes(limit: options.Limit = 100) -> None:
    """List enrolment codes, the newest first; the codes themselves are not kept.

    Example: pgfleet device codes
    """
    with open_database() as db:
        rows = db.find("enrollment_code_list", order=("-id",), limit=limit)
    columns = ["id", "state", "used_count", "max_uses", "only_for", "expires_at", "created_at"]
    output.show_rows(rows, columns)


@app.command("revoke-code", changes=True)
def revoke_code(
    code: Annotated[int, typer.Argument(help="Id of the code; see pgfleet device codes.")],
) -> None:
    """Make an enrolment code useless; devices that used it stay.

    Example: pgfleet device revoke-code 3
    """
    with open_database() as db:
        db.value("revoke_enrollment_code", p_id=code)
    output.did(f"Code {code} is revoked.")


@app.command(changes=True)
def rekey(device: Device) -> None:
    """Make a code with which this very device enrols again.

    Example: pgfleet device rekey lab-01
    """
    with open_database() as db:
        found = names.device_id(db, device)
        db.touches("device", found)
        made = db.value("rekey_device", p_device_id=found)
    row = {key: made[key] for key in _CODE}
    output.show_row(row)
    output.did("Its former secret is void once the code is used.")


@app.command(changes=True)
def retire(device: Device, yes: options.Yes = False) -> None:
    """Take a device out of service: its secret is void at once, its history stays.

    Example: pgfleet device retire lab-01 --yes
    """
    with open_database() as db:
        found = names.device_id(db, device)
        db.commit()
        output.confirm(f"Retire device {device} and cancel what waits for it?", yes=yes)
        db.touches("device", found)
        row = db.row("retire_device", "id", "hostname", "status", p_device_id=found)
    output.show_row(row)


@app.command(changes=True)
def delete(device: Device, yes: options.Yes = False) -> None:
    """Delete a device with its history; to keep that, retire it instead.

    Example: pgfleet device delete lab-01 --yes
    """
    with open_database() as db:
        found = names.device_id(db, device)
        row = _read(db, found)
        db.commit()
        output.confirm(f"Delete device {row['hostname']} with its history?", yes=yes)
        db.touches("device", found)
        if not db.delete("devices", found, "id"):
            raise NotAllowed(
                f"the permission manage is missing for device {row['hostname']}",
                reason="permission_missing",
                hint="An admin of the owner can grant it: pgfleet owner permit",
            )
    output.show_row({key: row[key] for key in ("id", "hostname", "owner", "status")})
    output.did("Deleted.")


@app.command(changes=True)
def tag(
    device: Device,
    add: Annotated[list[str] | None, typer.Option(help="A tag to add; repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A tag to take away.")] = None,
) -> None:
    """Add and remove tags of a device.

    Example: pgfleet device tag lab-01 --add school-7 --remove spare
    """
    with open_database() as db:
        found = names.device_id(db, device)
        db.touches("device", found)
        row = db.row(
            "tag_device",
            *("id", "hostname", "tags"),
            p_device_id=found,
            p_add=add,
            p_remove=remove,
        )
    output.show_row(row)


def _read(db: Database, device_id: int) -> dict[str, Any]:
    return names.found(db.find("device_list", {"id": device_id}), "device", device_id)


@app.command()
def health(limit: options.Limit = 1000) -> None:
    """List how devices are, as they said last: battery, disk, system, since when they run.

    Example: pgfleet device health
    """
    with open_database() as db:
        rows = db.find("device_health_list", order=("hostname", "device_id"), limit=limit)
    output.show_rows(
        rows,
        [
            *("hostname", "battery_percent", "is_charging", "disk_free_bytes", "disk_total_bytes"),
            *("os", "booted_at", "last_seen"),
        ],
        spare=("disk_total_bytes", "os", "booted_at"),
    )
