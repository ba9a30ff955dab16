"""The documentation builds as a site without a warning, and a page of it calls nobody."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a browser would fetch by itself; a link that a reader follows is something else.
FETCHED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//""")
STYLES = re.compile(r"""<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|preload)[^>]*//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, aside, and give its folder."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [ROOT / "scripts" / "docs", "--site-dir", str(folder)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stderr == ""
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    built = {
        "index.html" if page.stem == "index" else f"{page.with_suffix('')}/index.html"
        for page in pages
    }
    assert built
    assert {name for name in built if not (site / name).is_file()} == set()


def test_search_knows_the_pages(site: Path) -> None:
    assert "doorbell" in (site / "search" / "search_index.json").read_text()


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert FETCHED.findall(text) == [], page
        assert STYLES.findall(text) == [], page
