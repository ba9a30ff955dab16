"""The journal: durable, compact, and honest about what it cannot know."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgfleet.agent import journal as journal_module
from pgfleet.agent import state
from pgfleet.agent.journal import Entry, Journal, Outcome, read
from pgfleet.errors import InvalidInput, NotAllowed

DONE = Outcome("completed", {"ok": True})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    state.prepare(tmp_path / "device")
    return tmp_path / "device" / state.JOURNAL


def reopened(journal: Journal, path: Path) -> Journal:
    journal.close()
    return Journal(path)


def test_a_new_journal_has_an_id_that_stays(path: Path) -> None:
    journal = Journal(path)
    again = reopened(journal, path)
    assert again.id == journal.id
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


def test_another_journal_has_another_id(path: Path) -> None:
    journal = Journal(path)
    journal.close()
    path.unlink()
    other = Journal(path)
    assert other.id != journal.id
    other.close()


def test_what_was_begun_is_known_after_a_crash(path: Path) -> None:
    journal = Journal(path)
    journal.started(1, 2, "lock", rerun_safe=True)
    again = Journal(path)
    assert again.open_entries() == [Entry(1, 2, "lock", True)]
    again.close()
    journal.close()


def test_a_result_is_known_until_it_is_settled(path: Path) -> None:
    journal = Journal(path)
    journal.started(1, 1, "buzz", rerun_safe=False)
    journal.finished(1, 1, DONE)
    journal = reopened(journal, path)
    assert journal.find(1) == Entry(1, 1, "buzz", False, DONE)
    journal.settled(1, 1)
    journal = reopened(journal, path)
    assert journal.open_entries() == []
    journal.close()


def test_a_second_start_forgets_the_first_outcome(path: Path) -> None:
    journal = Journal(path)
    journal.started(1, 1, "buzz", rerun_safe=False)
    journal.finished(1, 1, Outcome("failed", None, "no sound", "error"))
    journal.started(1, 2, "buzz", rerun_safe=False)
    assert journal.find(1) == Entry(1, 2, "buzz", False)
    journal.close()


def test_settled_lines_do_not_pile_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_AFTER_LINES", 10)
    monkeypatch.setattr("os.fsync", lambda _: None)
    journal = Journal(path)
    journal.started(1, 1, "lock", rerun_safe=True)
    for command_id in range(2, 200):
        journal.started(command_id, 1, "lock", rerun_safe=True)
        journal.finished(command_id, 1, DONE)
        journal.settled(command_id, 1)
    assert len(path.read_bytes().splitlines()) < 30
    journal = reopened(journal, path)
    assert journal.open_entries() == [Entry(1, 1, "lock", True)]
    journal.close()


def test_many_threads_write_whole_lines(path: Path) -> None:
    journal = Journal(path)

    def write(first: int) -> None:
        for command_id in range(first, first + 20):
            journal.started(command_id, 1, "lock", rerun_safe=True)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal = reopened(journal, path)
    assert len(journal.open_entries()) == 60
    journal.close()


def test_a_journal_that_others_can_read_is_refused(path: Path) -> None:
    Journal(path).close()
    path.chmod(0o644)
    with pytest.raises(NotAllowed):
        Journal(path)


@pytest.mark.parametrize(
    "damage", [b"\x00\x00\n", b"{}\n", b'{"event":"begun","command_id":1,"attempt":1}\n', b"\n"]
)
def test_damage_before_the_end_is_refused_and_named(path: Path, damage: bytes) -> None:
    Journal(path).close()
    whole = path.read_bytes() + damage
    path.write_bytes(whole + b'{"event":"settled","command_id":1,"attempt":1}\n')
    with pytest.raises(InvalidInput, match="line 2"):
        Journal(path)


EVENTS = st.tuples(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["started", "finished", "settled"]),
    st.text(max_size=8),
)


@given(events=st.lists(EVENTS, max_size=12), cut=st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_torn_write_loses_the_last_line_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, events: list[Any], cut: int
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    path.unlink(missing_ok=True)
    journal = Journal(path)
    states = [list[Entry]()]
    for command_id, attempt, event, text in events:
        match event:
            case "started":
                journal.started(command_id, attempt, text, rerun_safe=attempt == 1)
            case "finished":
                journal.finished(command_id, attempt, Outcome("completed", {"said": text}))
            case _:
                journal.settled(command_id, attempt)
        states.append(journal.open_entries())
    journal.close()

    head, *lines = path.read_bytes().splitlines(keepends=True)
    torn = b"".join(lines)[:cut]
    path.write_bytes(head + torn)
    again = Journal(path)
    assert again.id == journal.id
    assert again.open_entries() == states[torn.count(b"\n")]
    # What was torn is gone for good: the next line is not glued to it.
    again.started(9, 1, "lock", rerun_safe=True)
    _, found = read(path.read_bytes(), path)
    assert found[9] == Entry(9, 1, "lock", True)
    again.close()


def test_the_first_line_torn_makes_a_new_journal(path: Path) -> None:
    Journal(path).close()
    path.write_bytes(json.dumps({"journal": "0"}).encode())
    journal = Journal(path)
    assert journal.open_entries() == []
    assert len(journal.id) == 36
    journal.close()


def test_how_a_command_ended_is_remembered_for_a_server_that_forgets(path: Path) -> None:
    journal = Journal(path)
    journal.started(1, 1, "buzz", rerun_safe=False, made_at="then")
    journal.finished(1, 1, DONE)
    journal.settled(1, 1, final=True)
    for again in (journal, reopened(journal, path)):
        assert again.open_entries() == []
        found = again.find(1, "then")
        assert found is not None and found.settled
        assert found.outcome == Outcome("completed", None)
        # Another command of that number, and whoever cannot say when it was made.
        assert again.find(1, "later") is None
        assert again.find(1) is None
    again.close()


def test_what_is_to_be_tried_again_is_not_remembered(path: Path) -> None:
    journal = Journal(path)
    journal.started(1, 1, "buzz", rerun_safe=False, made_at="then")
    journal.finished(1, 1, Outcome("failed", None, "broken", "error"))
    journal.settled(1, 1, final=False)
    assert journal.find(1, "then") is None
    journal.close()


def test_another_command_of_an_open_number_is_not_known(path: Path) -> None:
    journal = Journal(path)
    journal.started(1, 1, "buzz", rerun_safe=False, made_at="then")
    assert journal.find(1, "later") is None
    journal.started(1, 1, "lock", rerun_safe=True, made_at="later")
    found = journal.find(1, "later")
    assert found is not None and found.command_type == "lock"
    journal.close()


def test_no_more_is_remembered_than_the_last_ones(path: Path) -> None:
    journal = Journal(path)
    count = journal_module.REMEMBERED + 5
    for number in range(1, count + 1):
        journal.started(number, 1, "buzz", rerun_safe=False, made_at="then")
        journal.finished(number, 1, DONE)
        journal.settled(number, 1, final=True)
    again = reopened(journal, path)
    assert again.find(5, "then") is None
    assert again.find(6, "then") is not None
    assert again.find(count, "then") is not None
    again.compact()
    assert len(path.read_bytes().splitlines()) == journal_module.REMEMBERED + 1
    again.close()
