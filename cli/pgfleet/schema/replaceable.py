"""Apply everything that can be replaced: functions, views, triggers and policies.

All files run in one transaction whenever one of them has changed. A function that no file
defines any more is not dropped but told: dropping is for a migration, which every way of
getting the schema has.
"""

from __future__ import annotations

import random
import time
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pgfleet.errors import MigrationFailed
from pgfleet.output import Progress
from pgfleet.schema import applied
from pgfleet.schema.sources import SqlFile, digest_of

# How long it is tried to have all tables at once; how long, each time, the first is waited for,
# and each of two groups of others.
_PATIENCE_SECONDS = 120.0
_FIRST_MILLISECONDS = 5000
_REST_MILLISECONDS = 450
_PAUSE_SECONDS = 0.7

_OWN_FUNCTIONS = """
select p.oid::regprocedure::text, p.xmin::text, n.nspname = 'fleet'
from pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('public', 'fleet')
  and p.proowner = (select r.oid from pg_roles as r where r.rolname = current_user)
  and not exists (
    select from pg_depend as d
    where d.classid = 'pg_proc'::regclass
      and d.objid = p.oid
      and d.deptype = 'e'
  )
"""

# A lock that was not had in time, alone or with all the others, or not without a deadlock.
_BUSY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
)
# A partition is locked with its table.
_OWN_TABLES = """
select format('%I.%I', n.nspname, c.relname), n.nspname = 'public'
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
where n.nspname in ('public', 'fleet', 'telemetry')
  and c.relkind in ('r', 'p')
  and not c.relispartition
  and c.relowner = (select r.oid from pg_roles as r where r.rolname = current_user)
order by c.oid
"""


def apply_with_patience(conn: psycopg.Connection[Any], files: list[SqlFile], tell: Progress) -> int:
    """Apply the sources; give way and try again where somebody is at the tables.

    Gives the number of files applied, as `apply` does.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with conn.transaction():
                if applied.digest(conn) != digest_of(files):
                    _hold_tables(conn)
                return apply(conn, files, tell)
        except MigrationFailed as error:
            cause = error.__cause__
            if not isinstance(cause, _BUSY) or time.monotonic() > end:
                raise
        time.sleep(random.uniform(0.05, _PAUSE_SECONDS))


def _hold_tables(conn: psycopg.Connection[Any]) -> None:
    """Lock every table of ours before anything is replaced.

    Taken one by one as files come to them, they would meet those who take them in another order,
    again and again on a busy fleet. So all are had at once or none. Nearly everybody begins with
    the devices: that table is waited for with nothing in hand, and who comes later waits there.
    For the others there is less time than it takes those who wait to call it a deadlock.
    """
    known = dict(conn.execute(_OWN_TABLES).fetchall())
    public = [name for name, is_public in known.items() if is_public]
    # Their rules are of the migrations: triggers are all that is replaced, and readers may read on.
    engine = [name for name in known if name not in public]
    try:
        if "public.devices" in known:
            _lock(conn, ["public.devices"], "access exclusive", _FIRST_MILLISECONDS)
        _lock(conn, public, "access exclusive", _REST_MILLISECONDS)
        _lock(conn, engine, "share row exclusive", _REST_MILLISECONDS)
    except psycopg.Error as error:
        raise refused("the tables", None, error) from error


def _lock(
    conn: psycopg.Connection[Any],
    names: list[LiteralString],
    mode: LiteralString,
    milliseconds: int,
) -> None:
    if not names:
        return
    limit = "select set_config('statement_timeout', %s, true)"
    tables = sql.SQL(", ").join(sql.SQL(name) for name in names)
    conn.execute(limit, (f"{milliseconds}ms",))
    conn.execute(sql.SQL("lock table {} in {} mode").format(tables, sql.SQL(mode)))
    conn.execute(limit, ("0",))


def apply(conn: psycopg.Connection[Any], files: list[SqlFile], tell: Progress) -> int:
    """Apply every file inside the caller's transaction, unless none has changed.

    Gives the number of files applied. Raises MigrationFailed, naming file and line.
    """
    digest = digest_of(files)
    changed = applied.digest(conn) != digest
    if changed:
        before = _own_functions(conn)
        _execute_files(conn, files, tell)
        _record_functions(conn, before, digest)
        conn.execute(
            """
            insert into fleet_ledger.sources (digest) values (%s)
            on conflict (id) do update set digest = excluded.digest, applied_at = now()
            """,
            (digest,),
        )
    _after_migrate(conn)
    return len(files) if changed else 0


def _execute_files(conn: psycopg.Connection[Any], files: list[SqlFile], tell: Progress) -> None:
    # Bodies may name what a later file defines; a lock that is not had soon is tried again.
    conn.execute("set local check_function_bodies = off")
    conn.execute("set local lock_timeout = '5s'")
    for done, file in enumerate(files):
        tell(file.name, done, len(files))
        text = file.text
        try:
            conn.execute(text.encode())
        except psycopg.Error as error:
            raise refused(file.name, text, error) from error
    tell("sources", len(files), len(files))
    conn.execute("set local check_function_bodies = on")


def _own_functions(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Map each function of ours to the transaction that wrote it last."""
    return {signature: xmin for signature, xmin, _ in conn.execute(_OWN_FUNCTIONS)}


def _record_functions(conn: psycopg.Connection[Any], before: dict[str, str], digest: str) -> None:
    defined = [
        signature
        for signature, xmin in _own_functions(conn).items()
        if before.get(signature) != xmin
    ]
    conn.execute(
        """
        insert into fleet_ledger.functions (signature, digest)
        select unnest(%s::text[]), %s
        on conflict (signature) do update set digest = excluded.digest
        """,
        (defined, digest),
    )
    conn.execute(
        "delete from fleet_ledger.functions where not signature = any (%s::text[])",
        (list(_own_functions(conn)),),
    )


def leftovers(conn: psycopg.Connection[Any]) -> list[str]:
    """List the functions that no source defines any more.

    In `fleet` that is every function not written by the last sources; in `public`, which a
    project shares with us, only one that sources have defined before.
    """
    digest = applied.digest(conn)
    recorded = dict(conn.execute("select signature, digest from fleet_ledger.functions").fetchall())
    return sorted(
        signature
        for signature, _, is_fleet in conn.execute(_OWN_FUNCTIONS)
        if (signature in recorded or is_fleet) and recorded.get(signature) != digest
    )


def _after_migrate(conn: psycopg.Connection[Any]) -> None:
    """Let the database bring its jobs, publications and time zones in line."""
    row = conn.execute("select to_regprocedure('fleet.after_migrate()') is not null").fetchone()
    if row is None or not row[0]:
        return
    try:
        conn.execute("select fleet.after_migrate()")
    except psycopg.Error as error:
        raise refused("fleet.after_migrate()", None, error) from error


def refused(name: str, text: str | None, error: psycopg.Error) -> MigrationFailed:
    """Say which file, and where in it, the database refused."""
    position = error.diag.statement_position
    line = ""
    if text is not None and position is not None:
        line = f" line {text.count(chr(10), 0, int(position)) + 1}"
    message = error.diag.message_primary or str(error).strip()
    return MigrationFailed(
        f"{name}{line}: {message}",
        reason=error.diag.message_detail or error.sqlstate,
        hint=error.diag.message_hint or "Nothing of this file was applied",
    )
