"""What the pages to look things up in show works, pasted in order on a fresh platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers.pages import name_of, pages, ways_through

FOUND = [
    page
    for page in pages()
    if name_of(page).startswith(("docs/reference/", "docs/explanation/")) and ways_through(page)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", FOUND, ids=name_of)
def test_what_the_page_shows_works(page: Path, read_page: Any) -> None:
    read_page(page, 0)
