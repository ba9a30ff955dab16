"""pgfleet owner: whose devices and schedules these are, and who runs them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.owner import move

app = options.Noun("Owners: whose devices and schedules these are.")
app.add_typer(move.app)

Owner = Annotated[str, typer.Argument(help="Name or id of the owner.")]
Member = Annotated[str, typer.Argument(help="E-mail address or id of the person.")]
May = Annotated[
    list[str] | None,
    typer.Option(
        "--may",
        help="view, operate, manage, can_run_commands, destructive or admin; repeatable.",
    ),
]

_OWNER = ("id", "name", "timezone", "devices", "schedules", "members", "is_default")
_CREATED = ("id", "name", "timezone", "created_at")
_MEMBER = ("owner", "user_id", "email", "permissions", "created_at")
_INVITATION = ("id", "owner", "state", "email", "permissions", "expires_at", "accepted_at")
_INVITED = ("id", "owner_id", "code", "email", "permissions", "expires_at")


@app.command("list")
def list_owners(limit: options.Limit = 1000) -> None:
    """List owners with what each has.

    Example: pgfleet owner list
    """
    with open_database() as db:
        rows = db.find("owner_list", columns=_OWNER, order=("name", "id"), limit=limit)
    output.show_rows(rows, list(_OWNER), spare=("is_default", "members", "timezone"))


@app.command(changes=True)
def create(
    name: Annotated[str, typer.Argument(help="Name of the fleet or team.")],
    timezone: Annotated[
        str | None, typer.Option(help="IANA name of the zone of its people; else UTC.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Use it wherever no owner is named.")
    ] = False,
) -> None:
    """Create an owner, to whom devices and schedules then belong.

    Example: pgfleet owner create "School 7" --timezone Europe/Berlin --default
    """
    with open_database() as db:
        row = db.row("create_owner", *_CREATED, p_name=name, p_timezone=timezone)
        if default:
            _set_default(db, str(row["id"]))
    output.show_row(row)


@app.command("set-default", changes=True)
def set_default(owner: Owner) -> None:
    """Choose the owner of what is made where nobody is signed in, as here.

    Example: pgfleet owner set-default "School 7"
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        _set_default(db, found)
    output.show_row({"default_owner": found})


@app.command("set-timezone", changes=True)
def set_timezone(
    owner: Owner, timezone: Annotated[str, typer.Argument(help="IANA name, as Europe/Berlin.")]
) -> None:
    """Say in which time zone the people of an owner live.

    Example: pgfleet owner set-timezone "School 7" Europe/Berlin
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        row = db.row("set_owner_timezone", *_CREATED, p_owner_id=found, p_timezone=timezone)
    output.show_row(row)


@app.command(changes=True)
def rename(owner: Owner, name: Annotated[str, typer.Argument(help="The new name.")]) -> None:
    """Give an owner another name.

    Example: pgfleet owner rename "School 7" "School 7, Main Street"
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        row = db.row("rename_owner", *_CREATED, p_owner_id=found, p_name=name)
    output.show_row(row)


@app.command()
def members(owner: Annotated[str | None, typer.Argument(help="Name or id.")] = None) -> None:
    """List the people who run an owner, and what they may do; of all owners where none is named.

    Example: pgfleet owner members "School 7"
    """
    with open_database() as db:
        wanted = {"owner_id": names.owner_id(db, owner)}
        rows = db.find(
            "owner_member_list", wanted, columns=_MEMBER, order=("owner", "email", "user_id")
        )
    output.show_rows(rows)


@app.command(changes=True)
def invite(
    owner: Owner,
    email: Annotated[
        str | None, typer.Argument(help="Who alone may accept; else whoever has the code.")
    ] = None,
    may: May = None,
    expires: Annotated[str, typer.Option(help="How long it is good for.")] = "7 days",
    plain: Annotated[
        bool, typer.Option("--plain", help="Print the code alone, for a script.")
    ] = False,
) -> None:
    """Invite somebody to run an owner with you; the code is shown this once.

    Who accepts it may view, operate and manage, unless --may says otherwise.

    Example: pgfleet owner invite "School 7" ben@school.example --may view --may operate
    """
    with open_database() as db:
        made = db.value(
            "invite_member",
            p_owner_id=names.owner_id(db, owner),
            p_email=email,
            p_permissions=may,
            p_expires_in=expires,
        )
    if plain:
        output.show_text(made["code"])
        return
    output.show_row({key: made[key] for key in _INVITED})
    who = email or "WHO"
    output.say(f"{email or 'They'} can accept with: pgfleet --as {who} owner accept {made['code']}")


@app.command()
def invitations(
    owner: Annotated[str | None, typer.Argument(help="Name or id.")] = None,
    limit: options.Limit = 100,
) -> None:
    """List invitations, the newest first; the codes themselves are not kept.

    Example: pgfleet owner invitations "School 7"
    """
    with open_database() as db:
        wanted = {"owner_id": names.owner_id(db, owner)}
        rows = db.find(
            "owner_invitation_list", wanted, columns=_INVITATION, order=("-id",), limit=limit
        )
    output.show_rows(rows)


@app.command(changes=True)
def uninvite(
    invitation: Annotated[int, typer.Argument(help="Id; see pgfleet owner invitations.")],
) -> None:
    """Withdraw an invitation that nobody has accepted.

    Example: pgfleet owner uninvite 3
    """
    with open_database() as db:
        db.value("revoke_invitation", p_invitation_id=invitation)
    output.did(f"Invitation {invitation} is withdrawn.")


@app.command(changes=True)
def accept(code: Annotated[str, typer.Argument(help="The code of the invitation.")]) -> None:
    """Become a member of the owner that a code invites to.

    Say who you are before the noun: pgfleet --as ben@school.example owner accept …, or set
    PGFLEET_AS. Over REST it is the function accept_invitation, with your access token.

    Example: pgfleet owner accept 0123456789ABCDEF0123456789ABCDEF
    """
    with open_database() as db:
        answer = db.value("accept_invitation", p_code=code)
    output.show_row(answer)


@app.command(changes=True)
def permit(owner: Owner, member: Member, may: May = None) -> None:
    """Change what a member may do; what is not named is not allowed any more.

    Example: pgfleet owner permit "School 7" ben@school.example --may view --may operate
    """
    if not may:
        raise typer.BadParameter("say with --may what is allowed")
    with open_database() as db:
        row = db.value(
            "set_member_permissions",
            p_owner_id=names.owner_id(db, owner),
            p_member=member,
            p_permissions=may,
        )
    output.show_row(row)


@app.command(changes=True)
def remove(owner: Owner, member: Member, yes: options.Yes = False) -> None:
    """Take away somebody's membership; what the person has made stays.

    Example: pgfleet owner remove "School 7" ben@school.example --yes
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        db.commit()
        output.confirm(f"Remove {member} from {owner}?", yes=yes)
        row = db.value("remove_member", p_owner_id=found, p_member=member)
    output.show_row(row)


@app.command(changes=True)
def leave(owner: Owner, yes: options.Yes = False) -> None:
    """Leave an owner; its last admin stays.

    Say who you are before the noun: pgfleet --as ben@school.example owner leave …, or set
    PGFLEET_AS.

    Example: pgfleet owner leave "School 7" --yes
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        db.commit()
        output.confirm(f"Leave {owner}?", yes=yes)
        db.value("leave_owner", p_owner_id=found)
    output.did(f"You have left {owner}.")


@app.command(changes=True)
def delete(owner: Owner, yes: options.Yes = False) -> None:
    """Delete an owner without devices: its members, groups, schedules and their history.

    Example: pgfleet owner delete "School 7" --yes
    """
    with open_database() as db:
        row = _read(db, str(names.owner_id(db, owner)))
        db.commit()
        output.confirm(f"Delete {row['name']} with all that it has?", yes=yes)
        db.value("delete_owner", p_owner_id=row["id"])
    output.show_row(row)
    output.did("Deleted.")


@app.command()
def usage(owner: Annotated[str | None, typer.Argument(help="Name or id.")] = None) -> None:
    """Show what an owner has and does, and how much of it is allowed.

    Example: pgfleet owner usage "School 7"
    """
    with open_database() as db:
        found = (
            names.owner_id(db, owner)
            if owner
            else db.value("fleet.setting", p_name="default_owner")
        )
        if found is None:
            raise InvalidInput(
                "no owner is named, and none is the default",
                reason="owner_missing",
                hint="Name one: pgfleet owner usage <owner>",
            )
        rows = db.call("owner_usage", "name", "used", "allowed", "unit", p_owner_id=found)
    output.show_rows(rows)


@app.command("set-quota", changes=True)
def set_quota(
    owner: Annotated[str, typer.Argument(help="Name or id.")],
    quota: Annotated[str, typer.Argument(help="Which, as usage lists them.")],
    value: Annotated[
        int | None, typer.Argument(help="How much; left out: as the settings say.")
    ] = None,
) -> None:
    """Allow one owner more or less than the settings allow everybody.

    Example: pgfleet owner set-quota "School 7" devices 250000
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        allowed = db.value("fleet.set_quota", p_owner_id=found, p_name=quota, p_value=value)
    output.show_row({"owner_id": found, "quota": quota, "allowed": allowed})


def _read(db: Database, owner_id: str) -> dict[str, Any]:
    return names.found(db.find("owner_list", {"id": owner_id}, columns=_OWNER), "owner", owner_id)


def _set_default(db: Database, owner_id: str | None) -> None:
    db.value("fleet.set_setting", p_name="default_owner", p_value=json_value(owner_id))
