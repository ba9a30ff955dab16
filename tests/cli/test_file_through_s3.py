"""Files that are uploaded through the S3 door of a storage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.small_s3 import SmallS3, small_s3

from pgfleet.errors import InvalidInput, Unavailable
from pgfleet.nouns.deploy import storage


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Any:
    with small_s3("key-1") as store:
        monkeypatch.setenv("PGFLEET_S3_URL", store.url)
        monkeypatch.setenv("PGFLEET_S3_KEY_ID", "key-1")
        monkeypatch.setenv("PGFLEET_S3_SECRET", "secret")
        yield store


def put(path: Path) -> list[int]:
    told: list[int] = []
    where = storage.access()
    size = path.stat().st_size
    storage.upload(where, "o/abc", path, size, lambda what, done, total: told.append(done))
    return told


@pytest.mark.parametrize("size", [0, 10, 14_000_000])
def test_a_file_comes_through_whole_or_in_pieces(door: SmallS3, tmp_path: Path, size: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(content := os.urandom(size))
    told = put(path)
    assert door.objects == {"/pgfleet/o/abc": content}
    assert told == sorted(told) and told[-1:] in ([], [size // 1_000_000])


def test_a_piece_that_is_not_taken_is_sent_again(door: SmallS3, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content := os.urandom(7_000_000))
    door.faults = 1
    put(path)
    assert door.objects["/pgfleet/o/abc"] == content


def test_a_key_that_is_not_known_is_refused(
    door: SmallS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    monkeypatch.setenv("PGFLEET_S3_KEY_ID", "key-2")
    with pytest.raises(InvalidInput) as refused:
        put(path)
    assert refused.value.reason == "storage_refused"
    assert door.objects == {}


def test_where_nobody_answers_the_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name, value in {"URL": "http://127.0.0.1:9", "KEY_ID": "k", "SECRET": "s"}.items():
        monkeypatch.setenv(f"PGFLEET_S3_{name}", value)
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with pytest.raises(Unavailable) as refused:
        put(path)
    assert "127.0.0.1:9" in refused.value.message
