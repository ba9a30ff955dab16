"""The demo's story in a browser: at the address that it prints, and for as long as one stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
LINK = re.compile(r"http://127\.0\.0\.1:\d+/enter\?key=[\w-]+")
PATIENCE_SECONDS = 240
# Whoever runs the tests in the background may let all that they start ignore Ctrl-C.
PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("pgfleet", run_name="__main__", alter_sys=True)
"""


class Told:
    """What a program says, as it says it."""

    def __init__(self, stream: Any) -> None:
        self.text = ""
        self._grew = threading.Condition()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            with self._grew:
                self.text += line
                self._grew.notify_all()

    def wait_for(self, found: Any) -> Any:
        """Wait until what is looked for was said, and give it."""
        with self._grew:
            assert self._grew.wait_for(lambda: found(self.text), PATIENCE_SECONDS), self.text
            return found(self.text)


@pytest.mark.timeout(600)
def test_the_story_is_watched_and_stays_until_ctrl_c(chromium: Any) -> None:
    environment = {**os.environ, "TMPDIR": tempfile.mkdtemp(prefix="pgfleet-demo-test-")}
    Path(environment["TMPDIR"]).chmod(0o711)
    demo = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "demo", "--devices", "3", "--seconds", "6", "--stay"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    said, printed = Told(demo.stderr), Told(demo.stdout)
    try:
        link = said.wait_for(LINK.search)[0]
        context = chromium.new_context()
        page = context.new_page()
        page.goto(link)
        # It moves while the story is told: devices come, and the roll is called.
        expect(page.get_by_role("heading", level=1)).to_have_text("Now")
        expect(page.locator("#runs ~ ul")).to_contain_text("Roll call", timeout=120_000)
        report = json.loads(printed.wait_for(lambda text: "\n" in text and text))
        assert (report["devices"], report["lost"], report["duplicated"]) == (3, 0, 0)

        # All is over, and all is still there: a device carries out what it is told.
        said.wait_for(lambda text: "until Ctrl-C" in text)
        page.goto(page.url.rstrip("/") + "/devices/1")
        page.locator("[name=command_type]").select_option("lock")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator("h1 .badge")).to_have_text("completed", timeout=60_000)
        base = page.url.partition("/commands")[0]
        context.close()

        demo.send_signal(signal.SIGINT)
        assert demo.wait(PATIENCE_SECONDS) == 0, said.text
    finally:
        if demo.poll() is None:
            # It ends what it began.
            demo.send_signal(signal.SIGINT)
            demo.wait(PATIENCE_SECONDS)
    with pytest.raises(httpx.TransportError):
        httpx.get(base)
    assert list(Path(environment["TMPDIR"]).glob("pgfleet-demo-*")) == []
    Path(environment["TMPDIR"]).rmdir()
