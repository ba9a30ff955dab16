"""The JavaScript packages that some tests drive, installed once."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parents[1] / "local" / "node"


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """Install the JavaScript packages once; without Node.js or a registry the tests are skipped."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    wanted = json.loads((NODE / "package.json").read_text())["dependencies"]
    if any(not _is_present(name, version) for name, version in wanted.items()):
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(install, cwd=NODE, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm install failed: {done.stderr[-300:]}")
    return NODE


def _is_present(name: str, version: str) -> bool:
    found = NODE / "node_modules" / name / "package.json"
    if not found.exists():
        return False
    return version[0] in "^~" or json.loads(found.read_text())["version"] == version
