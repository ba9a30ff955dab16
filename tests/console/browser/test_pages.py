"""All pages, light and dark, on a desk and on a phone: drawn, and fit for everybody."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.console.browser.conftest import DESK, PHONE, ROOT, SCREENSHOTS

from pgfleet_console.table import PAGES

pytestmark = pytest.mark.browser
AXE = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# What is cut although it was to be read: neither scrolled nor shortened on purpose.
CUT = """() => [...document.querySelectorAll('main :is(h1, h2, p, td, th, li, dd, a, button)')]
  .filter(one => one.offsetParent && one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
    && getComputedStyle(one).overflowX === 'hidden' && !one.closest('.entries, .calendar'))
  .map(one => one.textContent.trim().slice(0, 40))"""


def test_every_page_of_the_table_is_among_them(pages: dict[str, str]) -> None:
    addresses = [path.partition("?")[0] for path in pages.values()]
    for view in (view for page in PAGES for view in page.views):
        pattern = re.compile(re.sub(r"\\?\{\w+\\?\}", r"\\w+", view.path))
        assert any(pattern.fullmatch(address) for address in addresses), view.path


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_pages_are_drawn_and_axe_finds_nothing(
    sit_down: Any, pages: dict[str, str], scheme: str, screen: Any
) -> None:
    person = sit_down("admin", screen=screen, scheme=scheme)
    folder = SCREENSHOTS / f"{scheme}-{'phone' if screen is PHONE else 'desk'}"
    folder.mkdir(parents=True, exist_ok=True)
    axe, asked = AXE.read_text(), {"runOnly": {"type": "tag", "values": list(RULES)}}
    found: dict[str, list[str]] = {}

    for name, path in pages.items():
        page = person.open(path)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > screen["width"]:
            found.setdefault(name, []).append(f"is {width} wide")
        found.setdefault(name, []).extend(f"cut: {one}" for one in page.evaluate(CUT))
        # By the driver, as if it were typed: the page's own policy lets nothing foreign in.
        page.evaluate(axe)
        for one in page.evaluate("asked => axe.run(document, asked)", asked)["violations"]:
            where = ", ".join(str(node["target"]) for node in one["nodes"][:4])
            found[name].append(f"{one['id']}: {one['help']} ({where})")

    assert not any(found.values()), "\n".join(
        f"{name}: {one}" for name, all_of_it in found.items() for one in all_of_it
    )
