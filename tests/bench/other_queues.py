"""Queues on Node that live in Postgres too, for jobs that do nothing, where Node and npm are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NODE = Path(__file__).parent / "node"
JOBS = 20_000


def jobs_a_second(url: str) -> dict[str, int]:
    """Give how many jobs a second each takes and ends; nothing where it cannot be told."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        print("other queues: Node.js and npm are not installed", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for file in NODE.iterdir():
            shutil.copy(file, folder)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"other queues: npm install failed: {done.stderr[-300:]}", file=sys.stderr)
            return {}
        done = subprocess.run(
            ["node", "queues.mjs", url, str(JOBS)],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found
