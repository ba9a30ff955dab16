"""What a fleet of laptops does again and again: tell how it is, and read what is to be blocked."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pgfleet.agent import state
from pgfleet.agent.handlers.interface import (
    HandlerContext,
    HandlerFailed,
    Reason,
    Server,
    invalid_payload,
    unsupported,
)
from pgfleet.agent.health import health

# The questions that may be asked; their words are here, so that nobody can ask for anything else.
QUERIES = {
    "system": "select hostname, cpu_brand, cpu_logical_cores, physical_memory, hardware_vendor,"
    " hardware_model from system_info",
    "os": "select name, version, build, platform, arch from os_version",
    "uptime": "select total_seconds from uptime",
    "disks": "select device, path, type, blocks_size, blocks, blocks_available from mounts"
    " where blocks > 0",
    "users": "select username, uid, shell from users limit 200",
    "interfaces": "select interface, mac, mtu from interface_details",
    "packages": "select name, version from deb_packages order by name limit 2000",
    "programs": "select name, version from programs order by name limit 2000",
    "apps": "select name, bundle_short_version as version from apps order by name limit 2000",
}
DEFAULT_QUERIES = ["system", "os", "uptime", "disks"]
BLOCKLISTS = "blocklists"


async def send_osquery_data(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Answer some of the questions that osquery can answer.

    Payload: {"queries"?: [name, …]}, each of `QUERIES`.
    """
    names = payload.get("queries", DEFAULT_QUERIES)
    if not isinstance(names, list) or not all(one in QUERIES for one in names):
        raise invalid_payload(f"queries must be a list of {', '.join(QUERIES)}")
    program = shutil.which("osqueryi")
    if program is None:
        raise unsupported("osquery is not installed on this device")
    return {name: await _ask(program, QUERIES[name]) for name in names}


async def _ask(program: str, query: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        program,
        "--json",
        query,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        told, complaint = await process.communicate()
    finally:
        # Where the command timed out it is stopped, and waited for.
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise HandlerFailed(f"osquery: {complaint.decode(errors='replace')[:500].strip()}")
    try:
        return json.loads(told)
    except ValueError as error:
        raise HandlerFailed("osquery answered something else than JSON") from error


async def collect_battery_data(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Find out how the device is, tell it as its health too, and answer it."""
    found = await asyncio.to_thread(health)
    if context.server is not None:
        await context.server.tell({"attributes": {"health": found}})
    return found


async def sync_website_blocklist(
    context: HandlerContext, payload: dict[str, Any]
) -> dict[str, Any]:
    """Keep the blocked websites as JSON, and as a file that a resolver or /etc/hosts can take."""
    found = await _blocklist(_server(context), "website")
    lines = [f"0.0.0.0 {one}\n" for one in found["entries"]]
    return await asyncio.to_thread(_keep, context.state_dir, found, "hosts", "".join(lines))


async def sync_software_blocklist(
    context: HandlerContext, payload: dict[str, Any]
) -> dict[str, Any]:
    """Keep the blocked software as JSON, and as lines of text."""
    found = await _blocklist(_server(context), "software")
    lines = [f"{one}\n" for one in found["entries"]]
    return await asyncio.to_thread(_keep, context.state_dir, found, "txt", "".join(lines))


def _server(context: HandlerContext) -> Server:
    if context.server is None:
        raise unsupported("there is no server to read it from")
    return context.server


async def _blocklist(server: Server, kind: str) -> dict[str, Any]:
    found = await server.blocklist(kind)
    entries = found.get("entries")
    if not isinstance(entries, list) or not all(isinstance(one, str) for one in entries):
        raise HandlerFailed("the server gave no blocklist", Reason.ERROR)
    # A line break would be another entry.
    fit = [one for one in entries if one.isprintable()]
    return {"kind": kind, "version": str(found.get("version")), "entries": fit}


def _keep(folder: Path, found: dict[str, Any], suffix: str, text: str) -> dict[str, Any]:
    """Put both files in place, whole; say whether anything is new."""
    folder = folder / BLOCKLISTS
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    known, plain = folder / f"{found['kind']}.json", folder / f"{found['kind']}.{suffix}"
    try:
        before = json.loads(known.read_text()).get("version")
    except (OSError, ValueError, AttributeError):
        before = None
    if before != found["version"] or not plain.exists():
        # The one that says which version it is comes last.
        _replace(plain, text)
        _replace(known, json.dumps(found, indent=1))
    return {
        "entries": len(found["entries"]),
        "version": found["version"],
        "is_new": before != found["version"],
        "file": str(plain),
    }


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    state.sync_folder(path.parent)
