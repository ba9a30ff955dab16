"""How this device is: its battery, its disk, its system, and since when it runs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SUPPLIES = Path("/sys/class/power_supply")
_PROGRAM_SECONDS = 5
# What Windows says of a battery that is not there, or that it knows nothing of.
_NO_BATTERY, _UNKNOWN = 128, 255


def health() -> dict[str, Any]:
    """Give what can be found out; what cannot is not there."""
    found: dict[str, Any] = {"os": system_name()}
    found |= battery()
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(os.environ.get("SYSTEMDRIVE", "") + os.sep)
        # To the mebibyte: otherwise each check-in would be another point.
        found["disk_total_bytes"] = usage.total >> 20 << 20
        found["disk_free_bytes"] = usage.free >> 20 << 20
    booted = booted_at()
    if booted is not None:
        found["booted_at"] = booted.isoformat(timespec="seconds")
    return found


def battery(supplies: Path = SUPPLIES) -> dict[str, Any]:
    """Give battery_percent and is_charging; nothing where there is no battery."""
    if sys.platform == "win32":
        return _battery_of_windows()
    if sys.platform == "darwin":
        return battery_of_pmset(_said("pmset", "-g", "batt"))
    levels, states = [], set()
    for folder in sorted(supplies.glob("*")):
        # A mouse has a battery as well, of the scope Device.
        if _read(folder / "type") != "Battery" or _read(folder / "scope") == "Device":
            continue
        level = _read(folder / "capacity")
        if level.isdecimal():
            levels.append(int(level))
            states.add(_read(folder / "status"))
    if not levels:
        return {}
    return {
        "battery_percent": min(round(sum(levels) / len(levels)), 100),
        "is_charging": bool(states & {"Charging", "Full", "Not charging"}),
    }


def battery_of_pmset(text: str) -> dict[str, Any]:
    """Read what the tool of macOS says."""
    level = re.search(r"(\d{1,3})%", text)
    if level is None:
        return {}
    return {"battery_percent": int(level[1]), "is_charging": "AC Power" in text}


def system_name() -> str:
    """Name the operating system with its version."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")[:200]
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {platform.version()}"[:200]


def booted_at() -> datetime | None:
    """Tell when the device was started."""
    seconds: float | None = None
    if sys.platform == "win32":
        ticks = ctypes.windll.kernel32.GetTickCount64
        ticks.restype = ctypes.c_ulonglong
        # Two readings of two clocks: to the minute, so that it stays the same.
        seconds = round((time.time() - ticks() / 1000) / 60) * 60
    elif sys.platform == "darwin":
        told = re.search(r"sec = (\d+)", _said("sysctl", "-n", "kern.boottime"))
        seconds = float(told[1]) if told else None
    else:
        told = re.search(r"^btime (\d+)", _read(Path("/proc/stat")), re.MULTILINE)
        seconds = float(told[1]) if told else None
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _battery_of_windows() -> dict[str, Any]:
    class Status(ctypes.Structure):
        _fields_ = (
            ("ac_line", ctypes.c_ubyte),
            ("flags", ctypes.c_ubyte),
            ("percent", ctypes.c_ubyte),
            ("saver", ctypes.c_ubyte),
            ("seconds", ctypes.c_ulong),
            ("full_seconds", ctypes.c_ulong),
        )

    status = Status()
    windll = getattr(ctypes, "windll", None)
    if windll is None or not windll.kernel32.GetSystemPowerStatus(ctypes.byref(status)):
        return {}
    if status.flags in (_NO_BATTERY, _UNKNOWN) or status.percent == _UNKNOWN:
        return {}
    return {"battery_percent": int(status.percent), "is_charging": status.ac_line == 1}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _said(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROGRAM_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
