"""The README is short, and what it shows works, pasted in order by somebody who has nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.helpers.pages import ROOT, blocks_of, ways_through

README = ROOT / "README.md"
TEXT = README.read_text()


@pytest.mark.timeout(600)
def test_what_the_readme_shows_works(at_a_fresh_desk: Any) -> None:
    with at_a_fresh_desk() as reader:
        for block in ways_through(README)[0]:
            reader.paste(block)


def test_it_is_read_in_five_minutes() -> None:
    assert len(TEXT.encode()) < 12_000


def test_its_own_fleet_takes_twenty_lines() -> None:
    pasted = [block for block in blocks_of(README) if block.language == "sh"]
    lines = [line for block in pasted[:2] for line in block.text.splitlines()]
    assert len(lines) <= 20


def test_its_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    inside = {link[1:] for link in links if link.startswith("#")}
    files = {link for link in links if not link.startswith(("#", "http"))}
    assert inside <= headings
    assert {link for link in files if not (ROOT / link.split("#")[0]).is_file()} == set()


def test_it_maps_every_page_of_the_docs() -> None:
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")}
    linked = set(re.findall(r"\]\((docs/[^)#]+)", TEXT))
    assert pages - linked == {"docs/index.md"}


def test_its_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert "up" in targets
    assert {name for name in targets if f"\n{name}:" not in makefile} == set()
