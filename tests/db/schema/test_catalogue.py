"""The house rules for tables, views and policies, asked of the catalogue itself."""

from __future__ import annotations

import re
from typing import Any

import psycopg

# Columns whose names say it all; every other one has a comment.
PLAIN_COLUMNS = {
    "id",
    "name",
    "description",
    "status",
    "owner_id",
    "device_id",
    "group_id",
    "command_id",
    "schedule_id",
    "run_id",
    "user_id",
    "created_at",
    "updated_at",
    "created_by",
    "calendar_id",
    "starts_at",
    "ends_at",
    "started_at",
    "finished_at",
    "claimed_at",
    "expires_at",
    "revoked_at",
    "enrolled_at",
    "located_at",
    "last_seen",
    "start_time",
    "end_time",
    "latitude",
    "longitude",
    "device_ids",
    "group_ids",
    "tags",
    "command_type",
    "payload",
    "result",
    "error_message",
    "completed",
    "is_built_in",
    "max_uses",
    "used_count",
    "secret",
}


def names(db: psycopg.Connection[Any], query: str, *args: Any) -> list[str]:
    return [str(row[0]) for row in db.execute(query.encode(), args or None).fetchall()]


TABLES = """
    pg_class as c
    where c.relnamespace::regnamespace::text in ('public', 'fleet')
      and c.relkind in ('r', 'p')
"""


def test_every_table_and_view_has_a_comment(db: Any) -> None:
    assert (
        names(
            db,
            "select c.oid::regclass from pg_class as c"
            " where c.relnamespace::regnamespace::text in ('public', 'fleet')"
            " and c.relkind in ('r', 'p', 'v', 'm') and obj_description(c.oid) is null",
        )
        == []
    )


def test_every_column_says_what_it_is(db: Any) -> None:
    mute = names(
        db,
        "select c.relname || '.' || a.attname from pg_class as c"
        " join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v')"
        " and col_description(c.oid, a.attnum) is null and a.attname <> all (%s) order by 1",
        list(PLAIN_COLUMNS),
    )
    assert mute == []


def test_every_table_has_row_security(db: Any) -> None:
    assert names(db, f"select c.oid::regclass from {TABLES} and not c.relrowsecurity") == []


def test_every_table_has_a_primary_key(db: Any) -> None:
    assert (
        names(
            db,
            f"select c.oid::regclass from {TABLES} and not exists ("
            "select 1 from pg_constraint as k where k.conrelid = c.oid and k.contype = 'p')",
        )
        == []
    )


def test_every_table_belongs_to_postgres(db: Any) -> None:
    query = f"select c.oid::regclass from {TABLES} and c.relowner <> 'postgres'::regrole"
    assert names(db, query) == []


# Over tables that have no row security, so that they can be anywhere: these say who sees what.
OVER_TELEMETRY = ["device_telemetry_history", "device_telemetry_latest"]


def test_views_ask_with_the_rights_of_the_caller(db: Any) -> None:
    others = names(
        db,
        "select c.oid::regclass from pg_class as c"
        " where c.relnamespace::regnamespace::text in ('public', 'fleet') and c.relkind = 'v'"
        " and not coalesce('security_invoker=true' = any (c.reloptions), false) order by 1",
    )
    assert others == OVER_TELEMETRY
    barriers = names(
        db,
        "select c.oid::regclass from pg_class as c where c.relname = any (%s)"
        " and 'security_barrier=true' = any (c.reloptions) order by 1",
        OVER_TELEMETRY,
    )
    assert barriers == OVER_TELEMETRY


def test_every_foreign_key_has_an_index(db: Any) -> None:
    assert (
        names(
            db,
            "select k.conname from pg_constraint as k"
            " where k.contype = 'f' and k.connamespace::regnamespace::text in ('public', 'fleet')"
            " and not exists (select 1 from pg_index as i where i.indrelid = k.conrelid"
            "   and coalesce(pg_get_expr(i.indpred, i.indrelid) ~ '^\\(\\w+ IS NOT NULL\\)$', true)"
            "   and ((i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey"
            # The id alone finds the rows; the owner beside it is only there to be the same.
            "     or exists (select 1 from pg_index as p where p.indrelid = k.confrelid"
            "       and p.indisprimary and p.indnatts = 1 and p.indkey[0] = k.confkey[1]"
            "       and i.indkey[0] = k.conkey[1])))",
        )
        == []
    )


def test_no_column_has_a_type_that_regrets_follow(db: Any) -> None:
    assert (
        names(
            db,
            "select format('%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))"
            " from pg_class as c"
            " join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
            " where c.relnamespace::regnamespace::text in ('public', 'fleet')"
            " and c.relkind in ('r', 'p')"
            " and a.atttypid = any ('{timestamp,varchar,bpchar,json,money,timetz}'::regtype[])"
            # What walls show in every zone at once: no instant, and meant so.
            " and a.attname not in ('scheduled_local', 'missed_to_local')",
        )
        == []
    )


def test_surrogate_keys_are_identity_columns(db: Any) -> None:
    assert (
        names(
            db,
            "select c.relname || '.' || a.attname from pg_class as c"
            " join pg_attribute as a on a.attrelid = c.oid and a.attname = 'id'"
            " where c.relnamespace::regnamespace::text in ('public', 'fleet')"
            " and c.relkind in ('r', 'p') and a.atttypid = 'bigint'::regtype"
            " and a.attidentity = ''",
        )
        == []
    )


def test_public_tables_know_when_a_row_was_made(db: Any) -> None:
    assert (
        names(
            db,
            f"select c.oid::regclass from {TABLES} and c.relnamespace = 'public'::regnamespace"
            " and not exists (select 1 from pg_attribute as a where a.attrelid = c.oid"
            "   and a.attname = 'created_at' and a.atttypid = 'timestamptz'::regtype)",
        )
        == []
    )


def test_constraints_and_indexes_are_named_after_their_table(db: Any) -> None:
    rows = db.execute(
        "select c.relname, k.conname, k.contype::text from pg_constraint as k"
        " join pg_class as c on c.oid = k.conrelid"
        " where k.connamespace::regnamespace::text in ('public', 'fleet')"
        " union all"
        " select t.relname, c.relname, case when i.indisunique then 'u' else 'i' end"
        " from pg_index as i join pg_class as c on c.oid = i.indexrelid"
        " join pg_class as t on t.oid = i.indrelid"
        " where c.relnamespace::regnamespace::text in ('public', 'fleet') and not i.indisprimary"
        " and t.relkind in ('r', 'p')"
    ).fetchall()
    endings = {"p": "_pkey", "u": "_key", "f": "_fkey", "i": "_idx"}
    wrong = [
        name
        for table, name, kind in rows
        # Those of columns that may not be null are named by Postgres, which has them since 18.
        if kind not in "tn"
        and not (
            name.startswith(f"{table}_")
            and (
                re.search(r"_(is|are|has|have|does)_", name)
                if kind == "c"
                else name.endswith(endings[kind])
            )
        )
    ]
    assert wrong == []


def test_a_status_is_checked_by_a_constraint_of_that_name(db: Any) -> None:
    assert (
        sorted(
            names(
                db,
                f"select c.relname from {TABLES} and exists (select 1 from pg_attribute as a"
                " where a.attrelid = c.oid and a.attname = 'status') and not exists ("
                "   select 1 from pg_constraint as k where k.conrelid = c.oid"
                "   and k.conname = c.relname || '_status_is_known')",
            )
        )
        # One check for the whole of a row, which says that name all the same.
        == ["device_commands", "devices"]
    )


def test_triggers_are_named_after_their_table_and_their_functions_after_triggers(db: Any) -> None:
    assert (
        names(
            db,
            "select format('%s on %s: %s', t.tgname, c.relname, p.proname) from pg_trigger as t"
            " join pg_class as c on c.oid = t.tgrelid join pg_proc as p on p.oid = t.tgfoid"
            " where not t.tgisinternal and p.pronamespace = 'fleet'::regnamespace"
            " and (t.tgname not like c.relname || '\\_%%' or p.proname not like 'tg\\_%%')",
        )
        == []
    )
    assert (
        names(
            db,
            "select p.oid::regprocedure from pg_proc as p"
            " where p.pronamespace::regnamespace::text in ('public', 'fleet')"
            " and (p.proname like 'tg\\_%%') <> (p.prorettype = 'trigger'::regtype)",
        )
        == []
    )


POLICIES = """
    select p.schemaname, p.tablename, p.policyname, p.cmd, p.roles::text[], p.permissive,
      concat_ws(' ', p.qual, p.with_check)
    from pg_policies as p
    where p.schemaname in ('public', 'fleet') or p.policyname like 'pgfleet%%'
"""


def test_policies_look_the_caller_up_once_a_statement(db: Any) -> None:
    per_row = []
    for _, table, policy, *_, expression in db.execute(POLICIES):
        calls = re.finditer(r"(\w+ +)?\b(?:fleet|auth|realtime|public)\.\w+\(", expression)
        for call in calls:
            if (call.group(1) or "").strip() != "SELECT":
                per_row.append((table, policy, call.group(0)))
    assert per_row == []


def test_policies_are_for_one_verb_and_named_roles(db: Any) -> None:
    wrong = []
    for schema, table, policy, verb, roles, permissive, _ in db.execute(POLICIES):
        word = verb.lower()
        own = schema in ("public", "fleet")
        name = f"{table}_{word}_" if own else f"pgfleet_{table}_{word}_"
        fits = policy.startswith(name) and re.fullmatch(r"[a-z_]+", policy)
        single = word != "all" or roles == ["service_role"]
        known = set(roles) <= {"authenticated", "service_role"} and permissive == "PERMISSIVE"
        if not (fits and single and known):
            wrong.append((table, policy, verb, roles))
    assert wrong == []


def test_no_policy_may_raise(db: Any) -> None:
    raising = [
        policy
        for _, _, policy, *_, expression in db.execute(POLICIES)
        if re.search(r"auth\.(uid|role|email)\(|::uuid|::bigint", expression)
    ]
    assert raising == []


def test_what_an_owner_has_goes_with_it_and_devices_keep_it(db: Any) -> None:
    rows = db.execute(
        "select conrelid::regclass::text, confdeltype from pg_constraint"
        " where contype = 'f' and confrelid = 'public.owners'::regclass"
    ).fetchall()
    assert {name for name, on_delete in rows if on_delete != "c"} == {"devices"}
