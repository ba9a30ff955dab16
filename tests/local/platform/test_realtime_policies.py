"""postgres makes policies on realtime.messages, as on hosted, and does nothing else to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest

Conn = psycopg.Connection[Any]
TOPIC = "device:1"


@pytest.fixture
def conn(empty_database: Any) -> Iterator[Conn]:
    with empty_database.connect() as connection:
        yield connection
        connection.rollback()


def sent(conn: Conn) -> list[tuple[Any, ...]]:
    return conn.execute("select topic, event, private, payload from realtime.messages").fetchall()


def test_postgres_makes_changes_and_drops_policies(conn: Conn) -> None:
    conn.execute(
        "create policy hear on realtime.messages for select to authenticated using (false)"
    )
    conn.execute("comment on policy hear on realtime.messages is 'who hears'")
    conn.execute("alter policy hear on realtime.messages using (topic = (select realtime.topic()))")
    conn.execute(
        "create policy speak on realtime.messages for insert to authenticated with check (true)"
    )
    conn.execute("set local role authenticated")
    conn.execute("select realtime.send('{\"a\": 1}', 'command', 'device:1', true)")
    assert len(sent(conn)) == 1
    conn.execute("select set_config('realtime.topic', 'device:2', true)")
    assert sent(conn) == []
    conn.execute("reset role")
    conn.execute("drop policy hear on realtime.messages")


@pytest.mark.parametrize(
    "statement",
    [
        "alter table realtime.messages enable row level security",
        "alter table realtime.messages disable row level security",
        "alter table realtime.messages no force row level security",
        "alter table realtime.messages add column x int",
        "alter table realtime.messages alter column topic drop not null",
        "alter table realtime.messages rename to x",
        "alter table realtime.messages set schema public",
        "alter table realtime.messages owner to postgres",
        "alter table realtime.messages disable trigger all",
        "alter index realtime.messages_pkey rename to x",
        "grant all on realtime.messages to anon",
        "revoke insert on realtime.messages from authenticated",
        "drop table realtime.messages",
        "drop table realtime.messages cascade",
        "create index on realtime.messages (topic)",
        "create rule r as on insert to realtime.messages do nothing",
        "create statistics public.s on topic, event from realtime.messages",
        "comment on table realtime.messages is 'x'",
        "comment on column realtime.messages.topic is 'x'",
        "create table public.p partition of realtime.messages"
        " for values from ('2100-01-01') to ('2100-01-02')",
        "set role supabase_realtime_admin",
        "alter event trigger pgfleet_guard_messages disable",
        "drop event trigger pgfleet_guard_messages_drop",
    ],
)
def test_postgres_is_refused_anything_else(conn: Conn, statement: LiteralString) -> None:
    before = shape(conn)
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement)

    assert caught.value.sqlstate == "42501"
    assert shape(conn) == before


def shape(conn: Conn) -> object:
    return conn.execute(
        "select relowner, relacl::text, relrowsecurity, relnatts, relhasrules, relhastriggers"
        " from pg_class where oid = 'realtime.messages'::regclass"
    ).fetchone()


def test_the_refusal_reads_as_on_hosted(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        conn.execute("alter table realtime.messages enable row level security")

    assert caught.value.diag.message_primary == "must be owner of table messages"


def test_another_table_called_messages_is_not_guarded(conn: Conn) -> None:
    conn.execute("create table public.messages (id int)")
    conn.execute("alter table public.messages enable row level security")
    conn.execute("grant select on public.messages to anon")
    conn.execute("drop table public.messages")


def test_owning_the_role_of_the_database_does_not_get_round_the_guard(conn: Conn) -> None:
    conn.execute("set local role pg_database_owner")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("alter table realtime.messages disable row level security")


def test_send_stores_the_payload_with_its_id(conn: Conn) -> None:
    conn.execute("select realtime.send('{\"a\": 1}', 'command', %s, true)", (TOPIC,))
    conn.execute("""select realtime.send('{"id": "mine"}', 'command', %s, false)""", (TOPIC,))

    first, second = sent(conn)
    assert first[:3] == (TOPIC, "command", True)
    assert first[3]["a"] == 1 and first[3]["id"]
    assert second[2:] == (False, {"id": "mine"})


@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_send_without_a_policy_only_warns(conn: Conn, role: str) -> None:
    warnings: list[str] = []
    conn.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    conn.execute("select set_config('role', %s, true)", (role,))
    conn.execute("select realtime.send('{}', 'command', 'device:1', true)")
    conn.execute("reset role")

    assert sent(conn) == []
    assert [w for w in warnings if w.startswith("WarnSendingBroadcastMessage: new row violates")]


def test_send_swallows_a_payload_that_is_no_object(conn: Conn) -> None:
    conn.execute("select realtime.send('[]', 'command', 'device:1', true)")

    assert sent(conn) == []


def test_partitions_reach_from_yesterday_three_days_ahead(empty_database: Any) -> None:
    with empty_database.connect("supabase_admin") as conn:
        conn.execute("select pgfleet_local.maintain_messages(now() + interval '10 days')")
        names = conn.execute(
            "select relid::regclass::text from pg_partition_tree('realtime.messages') where isleaf"
        ).fetchall()
        expected = conn.execute(
            "select to_char(now() at time zone 'utc' + make_interval(days => 10 + n),"
            " '\"realtime.messages_\"YYYY_MM_DD') from generate_series(-1, 3) as n"
        ).fetchall()

    assert sorted(names) == sorted(expected)


def test_broadcast_changes_sends_the_rows(conn: Conn) -> None:
    conn.execute("create table public.things (id int)")
    conn.execute(
        "create function public.tell() returns trigger language plpgsql as $$ begin"
        " perform realtime.broadcast_changes('t', tg_op, tg_op, tg_table_name, tg_table_schema,"
        " new, old); return null; end $$"
    )
    conn.execute(
        "create trigger tell after insert on public.things for each row"
        " execute function public.tell()"
    )
    conn.execute("insert into public.things values (7)")

    [(topic, event, private, payload)] = sent(conn)
    assert (topic, event, private) == ("t", "INSERT", True)
    assert payload["record"] == {"id": 7} and payload["old_record"] is None
