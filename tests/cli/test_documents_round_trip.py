"""Documents come back from a file as they went, in both formats, whatever a schedule may hold."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgfleet.errors import InvalidInput
from pgfleet.inputs import read_json, to_json
from pgfleet.nouns.schedule.document import read_document, write_document

ODD = [
    "12e4", "3e2", "1e5", "1_000", "0x1F", "0o17", "017", "0b1", "no", "No", "YES", "y", "on",
    "Off", "22:30", "1:20:30", "~", "null", "Null", "", " ", "true", "False", ".inf", "-.INF",
    ".nan", "NaN", "2026-12-25", "2026-12-25T06:30:00Z", "2001-12-14 21:59:43.10 -5", "-", "?",
    ":", "- a", "a: b", "a #b", "#", "&a", "*a", "!t", "!!int 3", "%TAG", "@a", "`a`", "[", "]",
    "{", "}", "[a, b]", "|", ">", "'", '"', "\\", "a\\nb", "=", "<<", "---", "...", "\t", " a",
    "a ", "a\nb", "a\n", "\na", "a\r\nb", "a\rb", "\u0085", "\u2028", "\ufeff", "\ufeffa",
    "a\u00a0", "\u200b", "\x07", "\x7f", "\U0001f392", "\U0001f468\u200d\U0001f467", "é",
    "e\u0301", "école n° 7", "ß", "日本", "+1", "-1", "1.", ".5", "+.5e3", "1e", "0", "-0", "00",
    "1,000", "12 monkeys", "x" * 300, "word " * 200, "a  b", "a\n\n\nb", "line \nline",
    "#!/bin/sh\necho \"a: b\" # c\n\texit 0", "key", "None", "0.1.2", "1e5 ", "1e500", "e5",
    "a:b", "a:",
]  # fmt: skip

# All that a text in the database can hold.
texts = st.one_of(
    st.sampled_from(ODD),
    st.text(
        alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
    ),
)
numbers = st.one_of(
    st.integers(-(10**30), 10**30),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20),
    st.sampled_from(
        [Decimal("1.10"), Decimal("0.1"), Decimal("1E+5"), Decimal("12345678901234567890.5")]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
documents = st.fixed_dictionaries(
    {"version": st.just(1), "schedules": st.lists(st.dictionaries(texts, values), max_size=3)}
)


@settings(max_examples=100, deadline=None)
@given(documents)
@pytest.mark.parametrize("as_json", [False, True])
def test_any_document_comes_back_as_it_went(as_json: bool, document: dict[str, Any]) -> None:
    text = write_document(document, as_json=as_json)
    assert read_document(text, "file") == document
    # Where lines end otherwise, as after a mail or an editor, it is the same document.
    if "\r" not in text:
        assert read_document("\ufeff" + text.replace("\n", "\r\n"), "file") == document


@pytest.mark.parametrize("odd", ODD)
def test_odd_text_is_text_as_value_key_and_member(odd: str) -> None:
    document = {
        "schedules": [{"name": odd, odd + "k": 1, "tags": [odd, odd], "payload": {odd: odd}}]
    }
    for as_json in (False, True):
        assert read_document(write_document(document, as_json=as_json), "file") == document


def test_what_other_readers_might_mistake_is_in_quotes() -> None:
    text = write_document({"schedules": [{"name": name} for name in ODD[:14]]}, as_json=False)
    assert text.count('"') == 28


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 06:30", "06:30"), ("a: 2026-12-25", "2026-12-25"), ("a: no", "no"),
        ("a: 0x1F", "0x1F"), ("a: 1_000", "1_000"), ("a: 12", 12),
        ("a: -0.50", Decimal("-0.50")), ("a: 1e5", Decimal("1E5")),
        ("a: ~", None), ("a:", None), ("a: null", None), ("a: true", True), ("a: True", "True"),
        ("a: 017", "017"), ("a: .inf", ".inf"), ("a: '12'", "12"), ("a: 10.0.0.1", "10.0.0.1"),
        ('{"a": "\\ud83c\\udf92"}', "🎒"), ('{"a": 1e5}', Decimal("1E5")), ("{a: b}", "b"),
        ("a: |\n  x\n  y\n", "x\ny\n"), ("a: >-\n  x\n  y\n", "x y"),
    ],
)  # fmt: skip
def test_what_people_write_by_hand_is_read_as_json_would(text: str, expected: Any) -> None:
    assert read_document(text, "file") == {"a": expected}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "duplicate key"),
        ("x:\n  b: 1\n  b: 1\n", "duplicate key"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', 'the key "c" stands twice'),
        ('{"a": NaN}', "NaN is no number"),
        ("1: x", "must be text"),
        ("a: {2: x}", "a: the key 2 must be text"),
        ("a: [true, {null: x}]", "a[1]: the key None must be text"),
        ("a: !!binary aGVsbG8=", "no value of JSON"),
        ("- a", "must hold one object"),
        ("a: [", "is neither YAML nor JSON"),
        ("a: 1\n---\nb: 2\n", "is neither YAML nor JSON"),
        ("a: 1e999999999", "out of bounds"),
        ("a: !!python/object/apply:os.system [ls]", "is neither YAML nor JSON"),
    ],
)
def test_what_is_no_document_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=r"^file: ") as caught:
        read_document(text, "file")
    assert words in str(caught.value)


@given(values)
def test_json_is_what_any_reader_reads(value: Any) -> None:
    for indent in (None, 2):
        text = to_json(value, indent=indent)
        assert read_json(text) == value
        json.loads(text)
