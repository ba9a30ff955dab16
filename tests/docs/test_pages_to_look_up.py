"""What the pages to look things up in show works, pasted in order on a fresh platform."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.pages import name_of, pages, ways_through

FOUND = [
    (page, way)
    for page in pages()
    if name_of(page).startswith(("docs/reference/", "docs/explanation/"))
    for way in range(len(ways_through(page)))
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("page", "way"), FOUND, ids=[f"{name_of(p)}-{w}" for p, w in FOUND])
def test_what_the_page_shows_works(page: Path, way: int, read_page: object) -> None:
    assert callable(read_page)
    read_page(page, way)
