"""Which handler carries out which command type."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from pgfleet.agent.handlers.cache import clear_cache
from pgfleet.agent.handlers.deploy.files import deploy_files
from pgfleet.agent.handlers.deploy.software import deploy_software
from pgfleet.agent.handlers.executables import ExecutableFolder
from pgfleet.agent.handlers.fleet_data import (
    collect_battery_data,
    send_osquery_data,
    sync_software_blocklist,
    sync_website_blocklist,
)
from pgfleet.agent.handlers.interface import Handler, unsupported
from pgfleet.agent.handlers.notice import broadcast_message, buzz
from pgfleet.agent.handlers.session import lock, unlock
from pgfleet.agent.handlers.shell import refuse_command, run_command
from pgfleet.agent.settings import AgentSettings

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "pgfleet.handlers"

_BUILT_IN: dict[str, Handler] = {
    "lock": lock,
    "unlock": unlock,
    "clear_cache": clear_cache,
    "buzz": buzz,
    "broadcast_message": broadcast_message,
    "deploy_files": deploy_files,
    "deploy_software": deploy_software,
    "send_osquery_data": send_osquery_data,
    "collect_battery_data": collect_battery_data,
    "sync_website_blocklist": sync_website_blocklist,
    "sync_software_blocklist": sync_software_blocklist,
}


class Handlers(Protocol):
    """Find handlers by command type."""

    def find(self, command_type: str) -> Handler:
        """Give the handler, or raise HandlerFailed when there is none."""
        ...


class HandlerRegistry:
    """Look first into the folder of programs, then at plug-ins, then at what is built in.

    A plug-in is an entry point of the group `pgfleet.handlers` whose name is the command
    type. Nothing but --allow-run-command opens `run_command`.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self._allow_run_command = settings.allow_run_command
        self._folder = ExecutableFolder(settings.handlers_dir) if settings.handlers_dir else None
        self._plugins = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
        self._loaded: dict[str, Handler] = {}

    def find(self, command_type: str) -> Handler:
        """Give the handler, or raise HandlerFailed when there is none."""
        if command_type == "run_command":
            return run_command if self._allow_run_command else refuse_command
        if self._folder is not None and (found := self._folder.find(command_type)) is not None:
            return found
        if command_type in self._plugins:
            return self._load(self._plugins[command_type])
        if command_type in _BUILT_IN:
            return _BUILT_IN[command_type]
        raise unsupported(f"this device has no handler for {command_type!r}")

    def names(self) -> list[str]:
        """List the command types that can be carried out here."""
        names = {*_BUILT_IN, *self._plugins}
        if self._folder is not None:
            names.update(self._folder.names())
        if self._allow_run_command:
            names.add("run_command")
        return sorted(names)

    def _load(self, point: EntryPoint) -> Handler:
        if point.name not in self._loaded:
            try:
                loaded: Callable[..., Any] = point.load()
            except Exception as error:
                # A plug-in is foreign code: whatever it raises is its failure, not ours.
                logger.exception("the plug-in %s cannot be loaded", point.value)
                raise unsupported(f"the plug-in {point.value} cannot be loaded") from error
            self._loaded[point.name] = loaded
        return self._loaded[point.name]
