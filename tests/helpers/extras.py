"""What each extra of the package brings along, and how programs run with nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = tuple(sorted(metadata.metadata("pgfleet").get_all("Provides-Extra") or ()))

# Refuses to import what belongs to other distributions than these.
_ALONE = """
import json, sys
hidden = set(json.loads(sys.argv.pop(1)))
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
code = sys.argv.pop(1)
exec(code)
"""


def brought_by(extra: str | None) -> set[str]:
    """Give the distributions that are installed for one extra, and for what these need."""
    found: set[str] = set()
    todo = [("pgfleet", frozenset({extra or ""}))]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for text in metadata.requires(name) or ():
            wanted = Requirement(text)
            marker = wanted.marker
            if marker is None or any(marker.evaluate({"extra": one}) for one in extras | {""}):
                todo.append((canonicalize_name(wanted.name), frozenset(wanted.extras)))
    return found


@cache
def modules() -> dict[str, set[str]]:
    """Give, for each module that can be imported, the distributions that bring it."""
    return {
        module: {canonicalize_name(name) for name in names}
        for module, names in metadata.packages_distributions().items()
    }


def run_alone(extra: str | None, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code where nothing can be imported but what an extra brings along."""
    brought = brought_by(extra)
    hidden = [module for module, names in modules().items() if not brought & names]
    return subprocess.run(
        [sys.executable, "-c", _ALONE, json.dumps(hidden), code, *words],
        capture_output=True,
        text=True,
    )
