"""Where a deployment may write: paths of a payload, brought below the roots of this device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgfleet.agent.handlers.interface import HandlerFailed, Reason, unsupported
from pgfleet.errors import InvalidInput

_LONGEST_PATH = 1000
_LONGEST_NAME = 255
_DRIVE = re.compile(r"[A-Za-z]:")
_RESERVED = re.compile(
    r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3]|conin\$|conout\$)([. ].*)?",
    re.IGNORECASE,
)
# The same list as fleet.unseen_characters(): what turns the direction of text makes a program look
# like a picture.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_WINDOWS_KEEPS = frozenset('<>:"|?*')


@dataclass(frozen=True, slots=True)
class Place:
    """A folder below a root: the root is the operator's word, the steps are the payload's."""

    root: Path
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Address:
    drive: str
    steps: tuple[str, ...]

    def below(self, other: _Address) -> tuple[str, ...] | None:
        """Give the steps from another address to this one; None where it is elsewhere."""
        mine, theirs = self.steps[: len(other.steps)], other.steps
        if self.drive:
            mine = tuple(step.casefold() for step in mine)
            theirs = tuple(step.casefold() for step in theirs)
        if self.drive != other.drive or mine != theirs:
            return None
        return self.steps[len(other.steps) :]


class Roots:
    """The folders that deployments may reach: {"C:": folder, "/etc/app": folder}."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = {_root_address(name): path for name, path in roots.items()}

    def place(self, path: object) -> Place:
        """Find where a path of a payload is on this device.

        Raises HandlerFailed: invalid_payload for what is no safe path, unsupported where no
        root covers it.
        """
        address = read_address(path)
        found = [
            (root, self._roots[root], steps)
            for root in self._roots
            if (steps := address.below(root)) is not None
        ]
        if not found:
            raise unsupported(
                f"this device has no deploy root for {path!s}; its agent must be started with "
                "--deploy-root"
            )
        _, folder, steps = max(found, key=lambda one: len(one[0].steps))
        return Place(folder, steps)


def read_address(path: object) -> _Address:
    """Take a path apart, or raise HandlerFailed for what is not a plain absolute one."""
    if not isinstance(path, str) or not path:
        raise _refused(path, "is not a path")
    if len(path) > _LONGEST_PATH:
        raise _refused(path, "is too long")
    _refuse_control(path)
    if path[:2] in ("\\\\", "//", "\\/", "/\\"):
        raise _refused(path, "is a share or a device")
    drive = path[:2].upper() if _DRIVE.match(path) else ""
    rest = path[2:] if drive else path
    if not rest.startswith(("/", "\\") if drive else "/"):
        raise _refused(path, "is not absolute")
    if not drive and "\\" in path:
        raise _refused(path, "holds a backslash")
    steps = (rest.replace("\\", "/") if drive else rest)[1:].split("/")
    if steps[-1] == "":
        steps.pop()
    for step in steps:
        _check_step(path, step, windows=bool(drive))
    return _Address(drive, tuple(steps))


def check_name(name: object) -> str:
    """Give a file name that is one plain name on every platform."""
    if not isinstance(name, str) or not name or name[0] in ".- " or "/" in name or "\\" in name:
        raise _refused(name, "is not one plain name")
    _refuse_control(name)
    _check_step(name, name, windows=True)
    return name


def _check_step(path: str, step: str, *, windows: bool) -> None:
    if step in ("", ".", ".."):
        raise _refused(path, "holds a step that leads elsewhere")
    if len(step) > _LONGEST_NAME or len(step.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise _refused(path, "holds a name that is too long")
    if not windows:
        return
    if _WINDOWS_KEEPS & set(step):
        raise _refused(path, "holds a character that Windows keeps for itself")
    if step[-1] in ". ":
        raise _refused(path, "holds a name that ends with a dot or a blank")
    if _RESERVED.fullmatch(step):
        raise _refused(path, "holds a name that Windows keeps for itself")


def _refuse_control(text: str) -> None:
    if _UNSEEN.search(text):
        raise _refused(text, "holds a control character, or one that nobody sees")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(text, "is not text") from error


def _root_address(name: str) -> _Address:
    try:
        # A drive alone is its top.
        return read_address(f"{name}\\" if _DRIVE.fullmatch(name) else name)
    except HandlerFailed as error:
        raise InvalidInput(
            f"deploy root {name!r}: {error.message}",
            reason="deploy_root_invalid",
            hint="Write --deploy-root C:=/srv/c or --deploy-root /etc/app=/etc/app.",
        ) from error


def _refused(path: object, why: str) -> HandlerFailed:
    return HandlerFailed(f"{str(path)[:200]!r} {why}", Reason.INVALID_PAYLOAD)
