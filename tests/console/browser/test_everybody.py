"""Pages that everybody can use: axe finds nothing wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.console.browser.conftest import DESK, PHONE, ROOT
from tests.console.browser.test_pictures import pages

pytestmark = pytest.mark.browser
AXE = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@pytest.mark.parametrize(
    ("scheme", "screen"), [("light", DESK), ("dark", PHONE)], ids=["light-desk", "dark-phone"]
)
def test_axe_finds_nothing(sit_down: Any, a_school: Any, scheme: str, screen: Any) -> None:
    person = sit_down("admin", screen=screen, scheme=scheme)
    asked = {"runOnly": {"type": "tag", "values": list(RULES)}}
    found: dict[str, list[str]] = {}

    for name, path in pages(a_school).items():
        page = person.open(path)
        # By the driver, as if it were typed: the page's own policy lets nothing foreign in.
        page.evaluate(AXE.read_text())
        for one in page.evaluate("asked => axe.run(document, asked)", asked)["violations"]:
            places = ", ".join(str(node["target"]) for node in one["nodes"][:4])
            found.setdefault(name, []).append(f"{one['id']}: {one['help']} ({places})")

    assert found == {}
