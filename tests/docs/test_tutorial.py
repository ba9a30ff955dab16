"""The tutorials work, pasted one after the other by somebody who has nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.pages import name_of, pages, ways_through

TUTORIALS = [page for page in pages() if name_of(page).startswith("docs/tutorial/")]


@pytest.fixture(scope="module")
def reader(at_a_fresh_desk: Any) -> Iterator[Any]:
    """Give one reader for all of them: each goes on where the one before ends."""
    with at_a_fresh_desk() as one:
        yield one


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", TUTORIALS, ids=name_of)
def test_what_the_tutorial_shows_works(page: Path, reader: Any) -> None:
    for block in ways_through(page)[0]:
        reader.paste(block)
