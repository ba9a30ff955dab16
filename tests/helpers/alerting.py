"""Alert rules evaluated on figures: as much of the language of Prometheus as our rules speak."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Value = float | Vector

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[a-zA-Z_]\w*)|(?P<number>\d+(?:\.\d+)?)|(?P<text>\"[^\"]*\")"
    r"|(?P<sign>==|!=|=~|!~|>=|<=|[-+*/<>=(){},]))"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_COUNT: dict[str, Callable[[float, float], float]] = {
    "*": operator.mul,
    "/": operator.truediv,
    "+": operator.add,
    "-": operator.sub,
}


@dataclass(frozen=True)
class Sample:
    """One figure at one moment."""

    name: str
    labels: Mapping[str, str]
    value: float


def firing(expression: str, samples: Iterable[Sample]) -> Vector:
    """Give what a rule finds: nothing where all is well."""
    reader = _Reader(expression, list(samples))
    found = reader.either()
    assert reader.rest() == "", f"{reader.rest()!r} is more than is spoken here"
    assert isinstance(found, dict)
    return found


class _Reader:
    def __init__(self, text: str, samples: list[Sample]) -> None:
        self._tokens = [found[0].strip() for found in _TOKEN.finditer(text)]
        self._samples = samples

    def rest(self) -> str:
        return " ".join(self._tokens)

    def either(self) -> Value:
        left = self.both()
        while self._take("or"):
            right = self.both()
            assert isinstance(left, dict) and isinstance(right, dict)
            left = {**right, **left}
        return left

    def both(self) -> Value:
        left = self._compared()
        while self._take("and"):
            right = self._compared()
            assert isinstance(left, dict) and isinstance(right, dict)
            left = {labels: value for labels, value in left.items() if labels in right}
        return left

    def _compared(self) -> Value:
        left = self._counted(("+", "-"), lambda: self._counted(("*", "/"), self._one))
        for sign, holds in _COMPARE.items():
            if self._take(sign):
                right = self._counted(("+", "-"), lambda: self._counted(("*", "/"), self._one))
                return {
                    labels: value
                    for labels, value, other in _pairs(left, right)
                    if holds(value, other)
                }
        return left

    def _counted(self, signs: tuple[str, ...], part: Callable[[], Value]) -> Value:
        left = part()
        while self._tokens and self._tokens[0] in signs:
            count = _COUNT[self._tokens.pop(0)]
            right = part()
            if isinstance(left, float) and isinstance(right, float):
                left = count(left, right)
            else:
                left = {labels: count(a, b) for labels, a, b in _pairs(left, right)}
        return left

    def _one(self) -> Value:
        token = self._tokens.pop(0)
        if token == "(":
            found = self.either()
            self._must(")")
            return found
        if token in ("sum", "absent"):
            self._must("(")
            found = self.either()
            self._must(")")
            assert isinstance(found, dict)
            if token == "absent":
                return {} if found else {frozenset(): 1.0}
            return {frozenset(): sum(found.values())} if found else {}
        if token[0].isdigit():
            return float(token)
        return self._selected(token)

    def _selected(self, name: str) -> Vector:
        wanted: list[tuple[str, str, str]] = []
        if self._take("{"):
            while not self._take("}"):
                label, sign, text = (self._tokens.pop(0) for _ in range(3))
                wanted.append((label, sign, text.strip('"')))
                self._take(",")
        return {
            frozenset(sample.labels.items()): float(sample.value)
            for sample in self._samples
            if sample.name == name and all(_matches(sample.labels, *one) for one in wanted)
        }

    def _take(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            self._tokens.pop(0)
            return True
        return False

    def _must(self, token: str) -> None:
        assert self._take(token), f"{token} expected before {self.rest()}"


def _matches(labels: Mapping[str, str], label: str, sign: str, text: str) -> bool:
    found = str(labels.get(label, ""))
    is_same = re.fullmatch(text, found) is not None if "~" in sign else found == text
    return is_same != sign.startswith("!")


def _pairs(left: Value, right: Value) -> list[tuple[Any, float, float]]:
    if isinstance(left, float):
        assert isinstance(right, dict)
        return [(labels, left, value) for labels, value in right.items()]
    if isinstance(right, float):
        return [(labels, value, right) for labels, value in left.items()]
    return [(labels, value, right[labels]) for labels, value in left.items() if labels in right]
