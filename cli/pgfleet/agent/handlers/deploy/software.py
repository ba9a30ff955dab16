"""`deploy_software`: packages in their order, each found, installed, or taken off."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.agent import state
from pgfleet.agent.handlers.deploy.download import Artifact
from pgfleet.agent.handlers.deploy.paths import Roots, read_address
from pgfleet.agent.handlers.deploy.place import open_folder
from pgfleet.agent.handlers.deploy.work import Work, begin
from pgfleet.agent.handlers.interface import (
    HandlerContext,
    HandlerFailed,
    Reason,
    invalid_payload,
)
from pgfleet.agent.handlers.process import ProcessResult, run_process

_LONGEST_SECONDS = 86_400.0
_DETECTION_SECONDS = 60.0
_TOLD = 2000


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a manifest."""

    package_id: int
    name: str
    version: str
    command: str | None
    detection: dict[str, Any] | None
    timeout: float
    platform: str | None
    file: Artifact | None

    @classmethod
    def read(cls, found: Any, *, uninstall: bool) -> Package:
        """Read an entry of a manifest, believing nothing of it."""
        try:
            return cls(
                int(found["id"]),
                str(found["name"]),
                str(found["version"]),
                found["uninstall_command" if uninstall else "install_command"],
                found["detection"] if isinstance(found.get("detection"), dict) else None,
                min(float(found["timeout_seconds"]), _LONGEST_SECONDS),
                found.get("platform"),
                None if found.get("file") is None else Artifact.read(found["file"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise invalid_payload("the manifest has a package that is not described") from error


class Notes:
    """What was begun and done of a command, on disk before anything depends on it."""

    def __init__(self, folder: Path, command_id: int) -> None:
        state.prepare(folder)
        self._path = folder / f"{command_id}.json"
        try:
            self._known: dict[str, str] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._known = {}

    def of(self, package: Package) -> str | None:
        """Give begun, done or None."""
        return self._known.get(str(package.package_id))

    def write(self, package: Package, what: str) -> None:
        """Note it, synced."""
        self._known[str(package.package_id)] = what
        state.write_private(self._path, json.dumps(self._known))

    def drop(self, package: Package) -> None:
        """Forget what ended by itself: it may be tried again."""
        self._known.pop(str(package.package_id), None)
        state.write_private(self._path, json.dumps(self._known))

    def forget(self) -> None:
        """Delete them; the command is over."""
        self._path.unlink(missing_ok=True)


async def deploy_software(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Install the packages of a deployment, or take them off.

    Payload: {"software_ids": ids, "uninstall"?: bool}.
    """
    if not context.deploy.allow_install:
        raise HandlerFailed(
            "this device does not allow installers; its agent must be started with --allow-install",
            Reason.FORBIDDEN,
        )
    async with begin(context, "software") as work:
        uninstall = work.manifest.get("uninstall") is True
        listed = work.manifest.get("packages")
        if not isinstance(listed, list):
            raise invalid_payload("the manifest has no list of packages")
        packages = [Package.read(one, uninstall=uninstall) for one in listed]
        work.total = sum(one.file.size for one in packages if one.file is not None)
        notes = Notes(work.folder / "notes", context.command_id)
        told: list[dict[str, Any]] = []
        for package in packages:
            try:
                told.append(await _one(work, notes, package, uninstall=uninstall))
            except HandlerFailed as failure:
                done = {"id": package.package_id, "name": package.name, "state": "failed"}
                failure.result = {"packages": [*told, {**done, **(failure.result or {})}]}
                raise
        notes.forget()
    acted = any(one["state"] != "skipped" for one in told)
    reason = {} if acted else {"reason": "; ".join(sorted({str(o["reason"]) for o in told}))}
    return {"state": "succeeded" if acted else "skipped", **reason, "packages": told}


async def _one(work: Work, notes: Notes, package: Package, *, uninstall: bool) -> dict[str, Any]:
    about = {"id": package.package_id, "name": package.name, "version": package.version}
    platform = str(work.manifest.get("platform") or sys.platform)
    if package.platform and package.platform.lower() != platform.lower():
        return {**about, "state": "skipped", "reason": f"it is for {package.platform}"}
    if notes.of(package) == "done":
        return {**about, "state": "succeeded"}
    found = None if package.detection is None else await _detect(work, package.detection)
    if found is not None and found is not uninstall:
        if notes.of(package) == "begun":
            return {**about, "state": "succeeded"}
        reason = "it is not installed" if uninstall else "it is installed already"
        return {**about, "state": "skipped", "reason": reason}
    if notes.of(package) == "begun" and package.detection is None:
        raise HandlerFailed(
            f"{package.name}: the device went down while it was being installed, and it has no "
            "detection rule to tell whether it is there",
            Reason.INTERRUPTED,
        )
    if not package.command:
        raise invalid_payload(
            f"{package.name} has no {'uninstall' if uninstall else 'install'} command"
        )
    done = await _run(work, notes, package)
    if package.detection is not None and await _detect(work, package.detection) is uninstall:
        notes.drop(package)
        still = "is still there" if uninstall else "is not there"
        raise HandlerFailed(f"{package.name}: by its detection rule it {still}", result=done)
    notes.write(package, "done")
    return {**about, "state": "succeeded", **done}


async def _run(work: Work, notes: Notes, package: Package) -> dict[str, Any]:
    """Run its command, with the file beside it, until it ends or its time is over."""
    folder = work.folder / "work" / str(work.context.command_id)
    state.prepare(folder)
    try:
        known = {"folder": str(folder)}
        if package.file is not None:
            work.tell("downloading", package=package.name)
            whole = await work.downloads.fetch(package.file)
            target = folder / package.file.name
            await asyncio.to_thread(shutil.copyfile, whole, target)
            os.chmod(target, 0o700)
            known["file"] = str(target)
        words = split_command(package.command or "", known)
        work.tell("installing", package=package.name)
        notes.write(package, "begun")
        done = await _process(work, package, words, folder)
        if package.file is not None:
            work.downloads.forget(package.file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = {"exit_code": done.exit_code, "output": _tail(done), "truncated": done.truncated}
    # 3010 and 1641 are how Windows installers say that a restart is to follow.
    if done.exit_code not in (0, 1641, 3010):
        notes.drop(package)
        words_said = f": {done.last_words[:500]}" if done.last_words else ""
        raise HandlerFailed(f"{package.name}: exit code {done.exit_code}{words_said}", result=told)
    return told


async def _process(work: Work, package: Package, words: list[str], folder: Path) -> ProcessResult:
    try:
        async with asyncio.timeout(package.timeout):
            return await run_process(words, limit=work.context.output_limit, folder=folder)
    except TimeoutError as error:
        raise HandlerFailed(
            f"{package.name}: its installer did not end within {package.timeout:g} s",
            Reason.TIMEOUT,
        ) from error
    except OSError as error:
        raise HandlerFailed(
            f"{package.name}: {words[0]} cannot be run: {error.strerror or error}"
        ) from error


def split_command(line: str, known: Mapping[str, str]) -> list[str]:
    """Take a command line apart into words, without a shell, and fill in {file} and {folder}."""
    try:
        words = shlex.split(line, posix=sys.platform != "win32")
    except ValueError as error:
        raise invalid_payload(f"the command cannot be read: {error}") from error
    if not words:
        raise invalid_payload("the command is empty")
    filled = []
    for word in words:
        for name in ("file", "folder"):
            mark = "{" + name + "}"
            if mark in word:
                if name not in known:
                    raise invalid_payload(f"the command asks for {mark}, and there is none")
                word = word.replace(mark, known[name])
        filled.append(word)
    return filled


async def _detect(work: Work, rule: dict[str, Any]) -> bool:
    """Tell whether the software is there."""
    if isinstance(rule.get("path"), str):
        return await asyncio.to_thread(_detect_path, work.roots, rule)
    if not isinstance(rule.get("command"), str):
        raise invalid_payload("the detection rule has neither a path nor a command")
    words = split_command(rule["command"], {})
    try:
        async with asyncio.timeout(_DETECTION_SECONDS):
            done = await run_process(words, limit=work.context.output_limit)
    except (OSError, TimeoutError):
        return False
    return done.exit_code == 0 and str(rule.get("output", "")) in done.stdout + done.stderr


def _detect_path(roots: Roots, rule: dict[str, Any]) -> bool:
    """Look for a file; below a root where one covers it, else at the path itself."""
    address = read_address(rule["path"])
    try:
        place = roots.place(rule["path"])
    except HandlerFailed:
        path = Path(rule["path"])
        if not path.is_file() or (address.drive and sys.platform != "win32"):
            return False
        with path.open("rb") as file:
            return rule.get("sha256") in (None, hashlib.file_digest(file, "sha256").hexdigest())
    if not place.steps:
        return place.root.is_dir()
    try:
        with open_folder(type(place)(place.root, place.steps[:-1]), create=False) as folder:
            found = folder.hash_of(place.steps[-1])
    except (HandlerFailed, OSError):
        return False
    return found is not None and rule.get("sha256") in (None, found)


def _tail(done: ProcessResult) -> str:
    return (done.stdout + done.stderr)[-_TOLD:]
