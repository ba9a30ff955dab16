"""Sixty and more wrong inputs: each gets one message, one hint and the right status.

Nothing of Python, Typer, libpq or the text of Postgres is in them.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

Pgfleet = Any
FOREIGN = re.compile(
    r"Traceback|Error\(|Errno|Input should|literal|codec|Expecting|Extra data|column \d+ \(char|"
    r"psycopg|libpq|FATAL|violates|duplicate key|relation \"|invalid input syntax|out of range for|"
    r"connection to server|connection is bad|value error|NoneType|(?-i:None)\b|"
    r"does not exist\"|at character|unterminated|pydantic|click",
    re.IGNORECASE,
)
# Words, status, what the message says, what the hint says.
WRONG = [
    # Words that are no commands.
    ("devcie list", 2, 'no command "devcie"', "pgfleet device"),
    ("schedules list", 2, 'no command "schedules"', "pgfleet schedule"),
    ("device lst", 2, 'no command "lst"', "pgfleet device list"),
    ("run delete 3", 2, 'no command "delete"', "pgfleet run --help"),
    ("device list --jsno", 2, "--jsno", "--json"),
    ("--databse-url x device list", 2, "--databse-url", "--database-url"),
    ("device list --json --csv", 2, "choose one", "--help"),
    ("device show", 2, "missing argument device", "--help"),
    ("device show a b", 2, "too many words", "--help"),
    ("run list --limit", 2, "needs a value", "--help"),
    ("run list --limit many", 2, "--limit: must be a whole number", "--help"),
    ("run list --limit 0", 2, "--limit: must be at least 1", "--help"),
    ("run show first", 2, "must be a whole number", "--help"),
    ("run watch", 2, "name a run", "--help"),
    ("device wait", 2, "name devices", "--help"),
    ("device wait x --timeout soon", 2, "must be a number", "--help"),
    ("schedule bulk stop", 2, "must be one of", "--help"),
    ("schedule upcoming x --count 5000", 2, "must be at most 1000", "--help"),
    ("functions run --port 70000", 2, "must be at most 65535", "--help"),
    # Things that there are not.
    ("device show nowhere", 1, 'device "nowhere" was not found', "pgfleet device list"),
    ("group show nobody", 1, 'group "nobody" was not found', "pgfleet group list"),
    ("schedule show never", 1, 'schedule "never" was not found', "pgfleet schedule list"),
    ("run show 99999", 1, 'run "99999" was not found', "pgfleet run list"),
    ("command show 99999", 1, 'command "99999" was not found', "pgfleet command list"),
    ("location show mars", 1, 'location "mars" was not found', "pgfleet location list"),
    ("webhook test none", 1, "was not found", "pgfleet webhook list"),
    ("integration show none", 1, "was not found", "pgfleet integration list"),
    ("blackout delete none --yes", 1, "was not found", "pgfleet blackout list"),
    ("template show none", 1, "was not found", "pgfleet template list"),
    ("geo show 99999", 1, "was not found", "pgfleet geo list"),
    ("audit show 99999", 1, "was not found", "pgfleet audit list"),
    ("profile unassign 99999", 1, "was not found", ""),
    ("profile end 99999", 1, "was not found", ""),
    ("feed revoke 99999 --yes", 1, "was not found", "pgfleet feed list"),
    ("setting set nonsense 5", 1, "nonsense", "pgfleet setting list"),
    ("device show 99999999999999999999999", 1, "was not found", "pgfleet device list"),
    # Values that are none.
    ("device create lab-01", 1, 'hostname "lab-01" already', "another"),
    ("group create labs", 1, 'name "labs" already', "another"),
    ("device create ' '", 1, "blank", ""),
    ("device create x --timezone Mars/Base", 1, "time zone", ""),
    ("device create x --attributes '{'", 1, "--attributes: is not JSON", "--attributes"),
    ("device create x --attributes 3", 1, "--attributes: must be a JSON object", "--attributes"),
    ("device create x --attributes @/none.json", 1, "cannot read /none.json", "FILE"),
    ("device enroll-code --expires soon", 1, '"soon" is not a duration', "2 hours"),
    ("device enroll-code --uses 0", 1, "", ""),
    ("device enroll-code --uses 99999999999", 1, "", ""),
    ("command send lab-01 lokc", 1, "lokc", "pgfleet command types"),
    ("command send lab-01 lock --priority 500", 1, "priority", ""),
    ("command send lab-01 lock --expires-after never", 1, '"never" is not a duration', "hours"),
    ("command send lab-01 lock --not-before 'next lurch'", 1, "is not a time", "tomorrow 9:00"),
    ("schedule create x --action lock --device lab-01 --daily 25:00", 1, "25:00", "HH:MM"),
    ("schedule create x --action lock --device lab-01 --cron 'a b c'", 1, "cron", ""),
    (
        "schedule create x --action lock --device lab-01 --at 2027-13-01",
        1,
        "2027-13-01",
        "tomorrow",
    ),
    (
        "schedule create x --action lock --device lab-01 --at 'tomorrow foo'",
        1,
        "not a time",
        "9:00",
    ),
    ("schedule create x --action lock --daily 1:00 --every '1 hour'", 1, "choose one", "cron"),
    ("schedule create x --action lock --device lab-01 --daily 02:30 --timezone X/Y", 1, "X/Y", ""),
    ("schedule create x --action lock --daily 02:30", 1, "names nobody", "selector"),
    ("schedule create x -f /none.json", 1, "cannot read /none.json", "FILE"),
    ("schedule update never --daily 02:30", 1, "was not found", "pgfleet schedule list"),
    ("schedule calendar --month never", 1, "is not a month", "2026-03"),
    ("schedule bulk pause --where colour=red", 1, "colour", ""),
    ("schedule history nightly --before never", 1, "is not a time", "tomorrow"),
    ("schedule explain nightly noonish", 1, "is not a time", "tomorrow"),
    ("schedule delete nightly", 1, "not confirmed", "--yes"),
    ("schedule apply /none.yaml", 1, "cannot read /none.yaml", "FILE"),
    ("location create x --at 95,200 --radius 5", 1, "latitude", ""),
    ("location create x --at here --radius 5", 1, "LATITUDE,LONGITUDE", "52.52"),
    ("location create x", 1, "--polygon", "--radius"),
    ("geo day pc-1 --date someday", 1, "someday", "2027-01-11"),
    ("geo create x --between 9-17 --group labs --app y", 1, "9-17", "22:00-06:00"),
    ("geo create x --between 09:00-17:00 --app y", 1, "", ""),
    ("webhook create ftp://example.com", 1, "url", ""),
    ("webhook create https://example.com/ --event run.fialed", 1, "run.fialed", ""),
    ("profile install 7 lab-01 --for ages", 1, '"ages" is not a duration', "minutes"),
    ("blackout create x --day someday", 1, "someday", ""),
    ("audit list --since whenever", 1, "is not a time", "tomorrow"),
    ("owner create ''", 1, "name", ""),
    # Databases that are none.
    ("-d postgresql://postgres@127.0.0.1:1/postgres device list", 1, "no database", "stack up"),
    ("-d postgresql://nowhere.invalid/x device list", 1, "no host of that name", "--database-url"),
    ("-d nonsense device list", 1, "no address of a database", "postgresql://"),
]


@pytest.fixture(scope="module")
def prepared(fleet: Any) -> None:
    """Make what some of the inputs name rightly."""
    import psycopg

    with psycopg.connect(fleet.url()) as conn:
        conn.execute("insert into devices (hostname) values ('lab-01')")
        conn.execute("insert into device_groups (name) values ('labs')")
        conn.execute(
            """
            select create_schedule('{"name": "nightly", "action_type": "lock", "device_ids": [1],
              "recurrence_type": "daily", "recurrence_config": {"time": "02:30"}}')
            """
        )


@pytest.mark.parametrize(("words", "status", "said", "hint"), WRONG)
def test_wrong_input_is_told_once_with_the_next_step(
    pgfleet: Pgfleet, prepared: None, words: str, status: int, said: str, hint: str
) -> None:
    answer = pgfleet(*shlex.split(words))

    lines = answer.err.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    hints = [line for line in lines if line.startswith("Hint: ")]
    others = [line for line in lines if not line.startswith(("Error: ", "Hint: "))]
    assert answer.code == status, answer
    assert answer.out == ""
    assert (len(errors), len(hints)) == (1, 1), answer.err
    assert {line.split(":")[0] for line in others} <= {"Reason", "Usage"}
    assert said in errors[0]
    assert hint in hints[0]
    assert FOREIGN.search(answer.err) is None, answer.err
    assert len(errors[0]) < 300


def test_there_are_sixty_of_them() -> None:
    assert len(WRONG) >= 60
