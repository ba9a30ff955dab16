"""The schema telemetry by itself, for a database of its own."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg

from pgfleet.database import open_database
from pgfleet.errors import translate_errors
from pgfleet.schema.replaceable import refused
from pgfleet.schema.sources import SqlFile, migration_files, rooms, sql_folder
from pgfleet.statements import Row

ROOM = "64_telemetry"
# Files of the room below this number need nothing of the rest.
FIRST_OF_THE_CORE = 30
# What a cloud keeps of a device.
STREAM = "/"


def prepare(url: str) -> list[str]:
    """Make the schema in another database, or bring it up to date; name the files that ran."""
    folder = sql_folder()
    tables = [one for one in migration_files(folder) if one.path.stem.endswith("_telemetry")]
    own = [
        file
        for room in rooms(folder)
        if room.name == ROOM
        for file in room.files
        if file.path.name[:2].isdigit() and int(file.path.name[:2]) < FIRST_OF_THE_CORE
    ]
    with translate_errors(), psycopg.connect(url, connect_timeout=10) as conn:
        found = conn.execute("select to_regclass('telemetry.points') is not null").fetchone()
        chosen = own if found is not None and found[0] else [*tables, *own]
        for file in chosen:
            _run(conn, file)
        conn.execute("select telemetry.worker_tend(90)")
    return [file.name for file in chosen]


def points(url: str, device: int, start: datetime, end: datetime, limit: int) -> list[Row]:
    """Read points of a device there, as the function telemetry_points() of the core gives them."""
    with open_database(url=url) as db:
        return db.call(
            "telemetry.read_points",
            *("device_id", "stream", "at as recorded_at", "received_at", "source"),
            *("is_provisional", "path", "data"),
            p_device_ids=[device],
            p_stream=STREAM,
            p_from=start,
            p_to=end,
            p_limit=limit,
        )


def hours(url: str, device: int, field: str | None, start: datetime, end: datetime) -> list[Row]:
    """Read the numbers of a device there by the hour; of all fields where none is named."""
    with open_database(url=url) as db:
        rows = db.call(
            "telemetry.read_hours",
            p_device_ids=[device],
            p_field=field,
            p_from=start,
            p_to=end,
            p_limit=10_000,
        )
    return rows


def gaps(url: str, device: int, start: datetime, end: datetime, pause: timedelta) -> list[Row]:
    """Read when a device was silent for long, there."""
    with open_database(url=url) as db:
        return db.call(
            "telemetry.read_gaps",
            p_device_ids=[device],
            p_stream=STREAM,
            p_from=start,
            p_to=end,
            p_longer_than=pause,
        )


def _run(conn: psycopg.Connection[tuple[object, ...]], file: SqlFile) -> None:
    text = file.text
    try:
        conn.execute(text.encode())
    except psycopg.Error as error:
        raise refused(file.name, text, error) from error
