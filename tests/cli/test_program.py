"""The program itself: exit codes, streams, terminals, and what is missing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pgfleet import __version__
from pgfleet.database import database_url
from pgfleet.errors import FleetError, MissingExtra, Unavailable
from pgfleet.options import Options, using

Pgfleet = Any


def program(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pgfleet", *words],
        capture_output=True,
        text=True,
        env=known,
        stdin=subprocess.DEVNULL,
    )


def on_terminal(*words: str, **environment: str) -> str:
    """Run the program on a terminal, and give what appears there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgfleet", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "200", **environment},
    )
    os.close(theirs)
    seen = b""
    # A terminal whose other side is closed gives an error, not an end.
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:
        pass
    finally:
        os.close(ours)
        process.wait()
    return seen.decode()


def test_exit_codes_tell_done_refused_and_usage(fleet: Any, tmp_path: Path) -> None:
    url = {"PGFLEET_DATABASE_URL": fleet.url()}

    done = program("device", "list", **url)
    refused = program("device", "show", "nowhere", **url)
    usage = program("device", "show", **url)

    assert (done.returncode, refused.returncode, usage.returncode) == (0, 1, 2)
    assert done.stderr == ""
    assert refused.stdout == ""
    assert "Usage: pgfleet device show" in usage.stderr


def test_version_is_that_of_the_package() -> None:
    assert program("--version").stdout == f"pgfleet {__version__}\n"


def test_unknown_noun_is_a_usage_error() -> None:
    answer = program("devices")

    assert answer.returncode == 2
    assert "devices" in answer.stderr


def test_database_that_does_not_answer_is_told_with_a_hint(tmp_path: Path) -> None:
    answer = program("-d", "postgresql://postgres@127.0.0.1:1/postgres", "device", "list")

    assert answer.returncode == 1
    assert answer.stderr.startswith("Error: ")
    assert "Hint: " in answer.stderr
    assert "Traceback" not in answer.stderr


def test_without_any_database_the_ways_to_name_one_are_told(bare: Pgfleet) -> None:
    answer = bare("device", "list")

    assert answer.code == 1
    assert "PGFLEET_DATABASE_URL" in answer.err


def test_option_wins_over_the_environment(
    fleet: Any, bare: Pgfleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_DATABASE_URL", "postgresql://postgres@127.0.0.1:1/postgres")

    assert bare("device", "list", "-d", fleet.url()).code == 0
    assert bare("-d", fleet.url(), "device", "list").code == 0
    assert bare("device", "list").code == 1


def test_database_without_pgfleet_says_to_migrate(bare: Pgfleet, empty_database: Any) -> None:
    answer = bare("-d", empty_database.url(), "device", "list")

    assert answer.code == 1
    assert "Hint: Bring the database up to date: pgfleet db migrate" in answer.err


def test_json_and_csv_together_are_a_usage_error(pgfleet: Pgfleet) -> None:
    assert pgfleet("device", "list", "--json", "--csv").code == 2


def test_terminal_gets_a_table_and_colours_unless_unwanted(fleet: Any, pgfleet: Pgfleet) -> None:
    pgfleet("device", "create", "shown")
    url = {"PGFLEET_DATABASE_URL": fleet.url()}

    coloured = on_terminal("device", "list", **url)
    plain = on_terminal("device", "list", NO_COLOR="1", **url)
    card = on_terminal("device", "show", "shown", **url)

    assert "\x1b[32m● active" in coloured
    assert "\x1b[3" not in plain
    assert "last seen" in plain
    assert "\t" not in plain + card
    assert "School 7" in card


def test_nothing_found_is_no_error(fleet: Any, pgfleet: Pgfleet) -> None:
    words = ("device", "list", "--search", "no such name")

    assert pgfleet(*words).out == ""
    assert pgfleet(*words, "--csv").out == ""
    assert pgfleet(*words, "--json").data == []
    assert "Nothing found." in on_terminal(*words, PGFLEET_DATABASE_URL=fleet.url())


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch, bare: Pgfleet) -> None:
    monkeypatch.delitem(sys.modules, "pgfleet.nouns.device", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [n for n in sys.modules if n.startswith("pgfleet.database")]:
        monkeypatch.delitem(sys.modules, name)

    answer = bare("device", "list", "--tag", "x")

    assert answer.code == 1
    assert "Hint: pip install 'pgfleet[admin]'" in answer.err


def test_help_of_the_whole_works_without_any_extra() -> None:
    code = "import sys; sys.modules['psycopg'] = sys.modules['yoyo'] = None\n"
    code += "from pgfleet.main import app; app(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "device" in done.stdout


def test_agent_does_not_load_the_database_driver() -> None:
    code = (
        "import sys; sys.argv = ['pgfleet', 'agent', '--help']\n"
        "from pgfleet.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "assert 'psycopg' not in sys.modules and 'yoyo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_errors_carry_the_status_of_their_kind() -> None:
    error = MissingExtra("local", "pgfleet stack")

    assert isinstance(error, FleetError)
    assert (error.status_code, Unavailable("x").status_code) == (500, 503)


def test_database_url_is_that_of_the_options() -> None:
    with using(Options(database_url="postgresql://somewhere")):
        assert database_url() == "postgresql://somewhere"
