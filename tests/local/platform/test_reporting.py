"""What the platform tells and logs: never in its own way, never without end."""

from __future__ import annotations

import threading
from pathlib import Path

from pgfleet_local.server.logs import KEPT_BYTES, LARGEST_BYTES, shorten, tail
from pgfleet_local.server.report import MOST_LINES, Report


def test_lines_are_passed_on_in_order() -> None:
    said: list[str] = []
    report = Report(said.append)
    with report.passing_on():
        for number in range(50):
            report(str(number))

    assert said == [str(number) for number in range(50)]


def test_nobody_waits_for_a_pipe_that_nobody_reads() -> None:
    reading = threading.Event()
    report = Report(lambda line: reading.wait(30) and None)
    with report.passing_on():
        for number in range(MOST_LINES * 2):
            report(str(number))
    reading.set()


def test_a_pipe_whose_reader_is_gone_ends_nothing() -> None:
    tried: list[str] = []

    def say(line: str) -> None:
        tried.append(line)
        raise BrokenPipeError

    report = Report(say)
    with report.passing_on():
        report("one")
        report("two")

    assert tried == ["one", "two"]


def test_nothing_is_told_where_nobody_listens() -> None:
    report = Report(None)
    with report.passing_on():
        report("one")


def test_a_log_that_has_grown_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("ab") as server:
        line = b"x" * 99 + b"\n"
        server.write(line * (LARGEST_BYTES // 100 + 1))
        server.write(b"the last\n")
        server.flush()
        shorten(log)
        assert log.stat().st_size < KEPT_BYTES + 1000
        # The server goes on where the log ends now.
        server.write(b"and after\n")
        server.flush()

    lines = log.read_text().splitlines()
    assert lines[0] == "(older lines were dropped)"
    assert lines[1] == "x" * 99
    assert tail(log, lines=2) == "the last\nand after"


def test_a_log_of_usual_size_stays_whole(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("one\ntwo\n")
    shorten(log)
    shorten(tmp_path / "missing.log")

    assert log.read_text() == "one\ntwo\n"
