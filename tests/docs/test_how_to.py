"""The guides work, pasted in their order on a fresh platform, in each of the ways through them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers.pages import name_of, pages, ways_through

GUIDES = [page for page in pages() if name_of(page).startswith("docs/how-to/")]
FOUND = [
    pytest.param(page, way, id=f"{name_of(page)}-{way}")
    for way in range(2)
    for page in GUIDES
    if way < len(ways_through(page))
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "way"), FOUND)
def test_what_the_guide_shows_works(page: Path, way: int, read_page: Any) -> None:
    read_page(page, way)
