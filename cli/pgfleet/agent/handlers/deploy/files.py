"""`deploy_files`: files of the fleet, whole and checked, in a folder of this device."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pgfleet.agent.handlers.deploy.download import Artifact
from pgfleet.agent.handlers.deploy.paths import Place
from pgfleet.agent.handlers.deploy.place import open_folder
from pgfleet.agent.handlers.deploy.work import Work, artifacts, begin
from pgfleet.agent.handlers.interface import HandlerContext, HandlerFailed


async def deploy_files(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Put the files of a deployment in place.

    Payload: {"file_ids": ids, "target_path": folder, "create_path_if_not_exists"?: bool}.
    """
    async with begin(context, "files") as work:
        place = work.roots.place(work.manifest.get("target_path"))
        create = work.manifest.get("create_path") is True
        wanted = artifacts(work.manifest.get("files"))
        # A folder that cannot be had is known before anything is downloaded.
        await asyncio.to_thread(_try_folder, place, create)
        work.total = sum(one.size for one in wanted)
        paths = []
        for one in wanted:
            work.tell("downloading", file=one.name)
            paths.append(await work.downloads.fetch(one))
        work.tell("verifying")
        written = await asyncio.to_thread(_put_all, work, place, create, wanted, paths)
        for one in wanted:
            work.downloads.forget(one)
    return {
        "state": "succeeded" if written else "skipped",
        **({} if written else {"reason": "every file is in place already"}),
        "folder": str(place.root.joinpath(*place.steps)),
        "files": [
            {"id": one.file_id, "name": one.name, "sha256": one.sha256, "written": one in written}
            for one in wanted
        ],
    }


def _try_folder(place: Place, create: bool) -> None:
    try:
        with open_folder(place, create=create) as folder:
            folder.remove_left_overs()
    except OSError as error:
        raise HandlerFailed(f"the folder cannot be written: {error.strerror}") from error


def _put_all(
    work: Work, place: Place, create: bool, wanted: list[Artifact], paths: list[Path]
) -> list[Artifact]:
    written = []
    try:
        with open_folder(place, create=create) as folder:
            for one, path in zip(wanted, paths, strict=True):
                aside = f".pgfleet-{work.context.command_id}-{one.file_id}.part"
                if folder.put(one.name, path, one.sha256, aside):
                    written.append(one)
    except OSError as error:
        raise HandlerFailed(f"{error.filename or 'a file'}: {error.strerror}") from error
    return written
