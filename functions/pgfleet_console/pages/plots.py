"""Small drawings: bars and lines in a box of 100 by 30, as SVG takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, GAP = 100.0, 30.0, 0.25


def bars(values: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Give a bar for each value, the highest as high as the box; what is said of it beside it."""
    most = max((value for _, value in values), default=0) or 1
    step = WIDTH / max(len(values), 1)
    return [
        {
            "said": said,
            "value": value,
            "x": round(at * step, 3),
            "width": round(step * (1 - GAP), 3),
            "y": round(HEIGHT - HEIGHT * value / most, 3),
            "height": round(HEIGHT * value / most, 3),
        }
        for at, (said, value) in enumerate(values)
    ]


def line(points: Sequence[tuple[float, float]]) -> str:
    """Give the points of a line from the first to the last, the lowest at the bottom."""
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys)
    return " ".join(
        f"{WIDTH * (x - min(xs)) / wide:.2f},"
        f"{HEIGHT - HEIGHT * (y - min(ys)) / high if high else HEIGHT / 2:.2f}"
        for x, y in points
    )
