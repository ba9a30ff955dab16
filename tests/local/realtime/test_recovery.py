"""What happens when Postgres, the slot or a publication goes away."""

from __future__ import annotations

from typing import Any

ONE = "11111111-1111-4111-8111-111111111111"
JOBS = {"event": "INSERT", "schema": "public", "table": "jobs"}
OURS = "from pg_stat_activity where application_name like 'pgfleet%%' and datname = %s"


def disconnect(server: Any) -> None:
    """End every connection of the server's, as a restart of Postgres does."""
    with server.database.connect("supabase_admin") as connection:
        connection.execute("select pg_terminate_backend(pid) " + OURS, (server.database.name,))


def test_listeners_are_told_when_the_stream_is_live_again(own_server: Any) -> None:
    server = own_server
    wire = server.open()
    wire.join("rows", access_token=server.sign(sub=ONE), changes=[JOBS])
    wire.join("bell", broadcast={"replication_ready": True})
    wire.system("bell")

    disconnect(server)

    assert wire.system("rows")["message"] == "Subscribed to PostgreSQL"
    assert wire.system("bell")["message"] == "Replication connection established"
    server.sql("insert into public.jobs (hostname) values ('one')")
    assert wire.change()["data"]["record"]["hostname"] == "one"
    server.sql("select realtime.send('{}', 'command', 'bell', false)")
    assert wire.broadcast()["event"] == "command"


def test_a_socket_can_join_private_topics_after_the_connections_were_lost(own_server: Any) -> None:
    server = own_server
    wire = server.open()
    disconnect(server)

    reply = wire.join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)

    assert reply["status"] == "ok"


def test_a_publication_may_be_dropped_and_made_again(own_server: Any) -> None:
    server = own_server
    wire = server.open()
    wire.join("rows", access_token=server.sign(sub=ONE), changes=[JOBS])

    server.sql("drop publication supabase_realtime")
    server.sql("insert into public.jobs (hostname) values ('one')")
    server.sql("create publication supabase_realtime for table public.jobs")

    assert wire.system("rows")["message"] == "Subscribed to PostgreSQL"
    server.sql("insert into public.jobs (hostname, note) values ('one', 'second')")
    assert wire.change()["data"]["record"]["note"] == "second"


def test_a_table_that_is_dropped_stops_nothing(own_server: Any) -> None:
    server = own_server
    wire = server.open()
    everything = {"event": "*", "schema": "public"}
    wire.join("rows", access_token=server.sign(sub=ONE), changes=[everything])

    with server.database.connect() as connection:
        connection.execute("insert into public.board (id) values (1)")
        connection.execute("drop table public.board")
    server.sql("insert into public.jobs (hostname) values ('one')")

    assert wire.change()["data"]["table"] == "jobs"


def test_a_server_that_cannot_reach_postgres_answers_and_waits(
    run_server: Any, realtime_database: Any, free_port: Any
) -> None:
    class Nowhere:
        def url(self, role: str) -> str:
            return f"postgresql://{role}@127.0.0.1:{free_port()}/nowhere?connect_timeout=1"

    server = run_server(Nowhere(), database_timeout=0.3)
    wire = server.open()

    assert wire.join("room")["status"] == "ok"
    reply = wire.join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)

    assert reply["response"]["reason"].startswith("UnableToConnectToProject")
