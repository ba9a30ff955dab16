"""pgfleet deploy: software and files on their way to the fleet, group by group."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database

app = options.Noun("Deployments and rollouts: what is on its way, and how far it got.")

Deployment = Annotated[
    int | None, typer.Argument(help="Id of the deployment; or --run of any rollout.")
]
Run = Annotated[int | None, typer.Option("--run", help="The rollout of this run instead.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the rollout.")]

_LOOK_SECONDS = 1.0
_OVER = ("completed", "failed", "rolled_back", "aborted")
_BAR = 24


@app.command(changes=True)
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    file: Annotated[list[int] | None, typer.Option(help="Id of a file; repeatable.")] = None,
    to: Annotated[str | None, typer.Option(help="Folder on the device for the files.")] = None,
    software: Annotated[list[int] | None, typer.Option(help="Id of a package; repeatable.")] = None,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Take the packages off instead.")
    ] = False,
    device: Annotated[list[str] | None, typer.Option(help="A device; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group; repeatable.")] = None,
    selector: Annotated[str | None, typer.Option(help="JSON that selects devices.")] = None,
    rollout: Annotated[
        str | None, typer.Option(help="JSON, or @FILE: groups, rate, abort, …")
    ] = None,
    at: Annotated[str | None, typer.Option(help="At this time; now by default.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA name for --at.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Send files or software once; for every week or night use pgfleet schedule create.

    Example: pgfleet deploy create "App 2.1" --file 10 --to /etc/app --group lab
    """
    plan = inputs.json_object(rollout, "--rollout")
    with open_database() as db:
        files = {"file_ids": file, "target_path": to, "create_path_if_not_exists": True}
        packages = {"software_ids": software, **({"uninstall": True} if uninstall else {})}
        spec = {
            "name": name,
            "action_type": "deploy_software" if software else "deploy_files",
            "payload": {"deployment_name": name, **(packages if software else files)},
            "device_ids": names.device_ids(db, device),
            "group_ids": names.group_ids(db, group),
            "selector": inputs.json_object(selector, "--selector"),
            "policies": None if plan is None else {"rollout": plan},
            "start_time": at,
            "timezone": timezone,
            "owner_id": names.owner_id(db, owner),
        }
        given = {key: value for key, value in spec.items() if value is not None}
        made = db.value("create_schedule", p_spec=json_value(given))
        db.touches("schedule", made["id"])
        found = db.find("deployment_list", {"schedule_id": made["id"]}, order=("-id",), limit=1)
    output.show_row(found[0] if found else made)
    for warning in made["warnings"]:
        output.say(f"Note: {warning}")


@app.command("list")
def list_deployments(limit: options.Limit = 50) -> None:
    """List deployments, the newest first.

    Example: pgfleet deploy list --json
    """
    with open_database() as db:
        rows = db.find("deployment_list", order=("-id",), limit=limit)
    output.show_rows(
        rows,
        [
            *("id", "name", "kind", "status", "total", "open", "succeeded", "failed", "skipped"),
            *("rolled_back", "percent"),
        ],
    )


@app.command("rollouts")
def list_rollouts(limit: options.Limit = 50) -> None:
    """List rollouts of every kind of schedule, the newest first.

    Example: pgfleet deploy rollouts
    """
    with open_database() as db:
        rows = db.find("rollout_list", order=("-run_id",), limit=limit)
    output.show_rows(
        rows,
        [
            *("run_id", "schedule", "status", "current_group", "targeted", "released"),
            *("succeeded", "failed", "reason"),
        ],
    )


@app.command()
def show(deployment: Deployment = None, run: Run = None) -> None:
    """Show a deployment: its groups, and why it failed where it failed.

    Example: pgfleet deploy show 3
    """
    with open_database() as db:
        found = _look(db, deployment, run)
    output.show_row(found)


@app.command()
def targets(
    deployment: Annotated[int, typer.Argument(help="Id of the deployment.")],
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: options.Limit = 100,
) -> None:
    """List the devices of a deployment with how far it got on each.

    Example: pgfleet deploy targets 3 --state failed
    """
    with open_database() as db:
        rows = db.find(
            "deployment_target_list",
            {"deployment_id": deployment, "state": state},
            order=("device_hostname",),
            limit=limit,
        )
    output.show_rows(
        rows, ["device_hostname", "state", "percent", "reason", "error_message", "updated_at"]
    )


@app.command()
def watch(deployment: Deployment = None, run: Run = None) -> None:
    """Follow a deployment until it is over, group by group; ends with 1 unless it completed.

    Example: pgfleet deploy watch 3
    """
    told = ""
    with open_database() as db:
        while True:
            found = _look(db, deployment, run)
            db.commit()
            now = _drawn(found)
            if now != told:
                output.say(now)
                told = now
            if found["status"] in _OVER or (found.get("rollout") or {}).get("status") in _OVER:
                break
            time.sleep(_LOOK_SECONDS)
    output.show_row(found)
    if found["status"] != "completed":
        raise typer.Exit(1)


@app.command(changes=True)
def pause(deployment: Deployment = None, run: Run = None, reason: Reason = None) -> None:
    """Let nobody else have a turn; who has it goes on.

    Example: pgfleet deploy pause 3 --reason "wait for the vendor"
    """
    with open_database() as db:
        found = _look(db, deployment, run)
        db.touches("schedule", found["schedule_id"])
        db.value("pause_rollout", p_run_id=found["run_id"], p_reason=reason)
        output.show_row(_look(db, deployment, run))


@app.command(changes=True)
def resume(deployment: Deployment = None, run: Run = None) -> None:
    """Let a paused rollout go on.

    Example: pgfleet deploy resume 3
    """
    with open_database() as db:
        found = _look(db, deployment, run)
        db.touches("schedule", found["schedule_id"])
        db.value("resume_rollout", p_run_id=found["run_id"])
        output.show_row(_look(db, deployment, run))


@app.command(changes=True)
def approve(
    deployment: Deployment = None,
    run: Run = None,
    note: Annotated[str | None, typer.Option(help="What you say about it; kept.")] = None,
) -> None:
    """Let the group that waits for an approval have its turn.

    Example: pgfleet deploy approve 3 --note "looked at the first group"
    """
    with open_database() as db:
        found = _look(db, deployment, run)
        db.touches("schedule", found["schedule_id"])
        db.value("approve_rollout", p_run_id=found["run_id"], p_note=note)
        output.show_row(_look(db, deployment, run))


@app.command(changes=True)
def abort(
    deployment: Deployment = None,
    run: Run = None,
    reason: Reason = None,
    yes: options.Yes = False,
) -> None:
    """End a rollout; where its plan says so, what is in place is taken back.

    Example: pgfleet deploy abort 3 --reason "crashes at start" --yes
    """
    with open_database() as db:
        found = _look(db, deployment, run)
        db.commit()
        output.confirm(f"Abort {found['name']}?", yes=yes)
        db.touches("schedule", found["schedule_id"])
        db.value("abort_rollout", p_run_id=found["run_id"], p_reason=reason)
        found = _look(db, deployment, run)
    output.show_row(found)


@app.command(changes=True)
def retry(deployment: Annotated[int, typer.Argument(help="Id of the deployment.")]) -> None:
    """Send a deployment once more to the devices on which it failed.

    Example: pgfleet deploy retry 3
    """
    with open_database() as db:
        made = db.value("retry_deployment", p_deployment_id=deployment)
        db.touches("schedule", made["id"])
        found = db.find("deployment_list", {"schedule_id": made["id"]}, order=("-id",), limit=1)
    output.show_row(found[0] if found else made)


def _look(db: Database, deployment: int | None, run: int | None) -> dict[str, Any]:
    """Give a deployment with its rollout and groups, or the rollout of a run alone."""
    if (deployment is None) == (run is None):
        raise typer.BadParameter("name either a deployment or --run")
    if deployment is not None:
        rows = db.find("deployment_list", {"id": deployment})
        found = names.found(rows, "deployment", deployment, noun="deploy")
        run = found["run_id"]
        wanted = {"deployment_id": deployment, "state": "failed"}
        failed = db.find("deployment_target_list", wanted, order=("device_hostname",), limit=20)
        found["failures"] = [
            {"device": one["device_hostname"], "reason": one["error_message"] or one["reason"]}
            for one in failed
        ]
        rollouts = db.find("rollout_list", {"run_id": run}) if run is not None else []
        found["rollout"] = rollouts[0] if rollouts else None
    else:
        rollout = names.found(db.find("rollout_list", {"run_id": run}), "rollout", str(run))
        found = {**rollout, "name": rollout["schedule"]}
    groups = db.find("rollout_group_list", {"run_id": run}, order=("wave",)) if run else []
    found["groups"] = groups
    return found


def _drawn(found: dict[str, Any]) -> str:
    """Draw a bar for each group."""
    rollout = found.get("rollout") or found
    lines = [f"{found['name']}: {rollout.get('status', found['status'])}"]
    if rollout.get("reason"):
        lines[0] += f" ({rollout['reason']})"
    for one in found["groups"] or [
        {"name": "all", **{k: found[k] for k in ("succeeded", "failed", "skipped")}}
        | {"targeted": found.get("total", 0), "status": found["status"]}
    ]:
        lines.append("  " + _bar(one))
    lines += [f"  {one['device']}: {one['reason']}" for one in (found.get("failures") or [])[:5]]
    return "\n".join(lines)


def _bar(group: dict[str, Any]) -> str:
    total = max(1, int(group["targeted"]))
    good = _BAR * int(group["succeeded"]) // total
    bad = -(-_BAR * int(group["failed"]) // total) if group["failed"] else 0
    bar = ("#" * good + "!" * bad).ljust(_BAR, ".")[:_BAR]
    said = f"{group['succeeded']}/{group['targeted']}"
    if group["failed"]:
        said += f", {group['failed']} failed"
    return f"{str(group['name'])[:16]:16} [{bar}] {said} {group['status']}"
