"""`buzz` and `broadcast_message`: be heard and be read by whoever sits at the device."""

from __future__ import annotations

import array
import asyncio
import math
import os
import shutil
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

from pgfleet.agent.handlers.interface import (
    HandlerContext,
    HandlerFailed,
    seconds_of,
    text_of,
    unsupported,
)
from pgfleet.agent.handlers.process import run_process

_OUTPUT_LIMIT = 4096
_RATE = 16_000
_PLAYERS = (("pw-play",), ("paplay",), ("aplay", "-q"), ("afplay",))


async def buzz(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Sound a tone. Payload: {"seconds"?: number up to 60}."""
    seconds = seconds_of(payload, "seconds", default=5.0, limit=60.0)
    if sys.platform == "win32":
        await asyncio.to_thread(_beep_windows, seconds)
        return {"method": "winsound", "seconds": seconds}
    with tempfile.TemporaryDirectory(prefix="pgfleet-buzz-") as folder:
        sound = Path(folder) / "tone.wav"
        _write_tone(sound, seconds)
        failure = "this device has no program that plays sound"
        for program, *options in _PLAYERS:
            found = shutil.which(program)
            if found is None:
                continue
            done = await run_process([found, *options, sound], limit=_OUTPUT_LIMIT)
            if done.exit_code == 0:
                return {"method": program, "seconds": seconds}
            failure = f"{program}: {done.last_words or done.exit_code}"
    # A machine without a sound card or a session is not going to get one by a retry.
    raise unsupported(failure)


async def broadcast_message(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Show a message. Payload: {"message": text, "title"?: text}."""
    message = text_of(payload, "message")
    title = text_of(payload, "title", default="Message from your administrator")
    if sys.platform == "win32":
        return await _first_that_works([("msg", "*", "/TIME:3600", f"{title}\n\n{message}")])
    if sys.platform == "darwin":
        script = "on run argv\ndisplay notification item 2 of argv with title item 1 of argv\nend"
        return await _first_that_works([("osascript", "-e", script, title, message)])
    ways: list[tuple[str, ...]] = []
    if os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        ways.append(("notify-send", "--urgency=critical", "--", title, message))
    ways.append(("wall", f"{title}\n\n{message}"))
    return await _first_that_works(ways)


async def _first_that_works(ways: list[tuple[str, ...]]) -> dict[str, Any]:
    failure: str | None = None
    for program, *options in ways:
        found = shutil.which(program)
        if found is None:
            continue
        done = await run_process([found, *options], limit=_OUTPUT_LIMIT)
        if done.exit_code == 0:
            return {"method": program}
        failure = f"{program}: {done.last_words or done.exit_code}"
    if failure is not None:
        raise HandlerFailed(failure)
    raise unsupported(f"this device has none of: {', '.join(way[0] for way in ways)}")


def _write_tone(path: Path, seconds: float) -> None:
    """Write half a second of tone and half of silence, as often as fits."""
    samples = array.array("h")
    for number in range(int(_RATE * seconds)):
        sounding = number % _RATE < _RATE // 2
        samples.append(int(20_000 * math.sin(2 * math.pi * 880 * number / _RATE) * sounding))
    if sys.byteorder == "big":
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(samples.tobytes())


def _beep_windows(seconds: float) -> None:
    import winsound

    beep: Any = getattr(winsound, "Beep")  # noqa: B009 - exists on Windows only
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        beep(880, 500)
        time.sleep(0.5)
