"""Starting, watching, killing and stopping the whole local platform."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import pytest
from tests.helpers.running_stack import RunningStack
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pgfleet_local.server.processes import is_alive, running_in, send, wait_gone
from pgfleet_local.server.stack import Stack
from pgfleet_local.settings import StackSettings


@pytest.fixture
def launch(prepared_settings: Callable[[], StackSettings]) -> Iterator[Callable[..., RunningStack]]:
    """Give a function that starts another platform, and stop all of them at the end."""
    started: list[RunningStack] = []

    def start(settings: StackSettings | None = None) -> RunningStack:
        running = RunningStack(settings or prepared_settings())
        started.append(running)
        return running

    yield start
    for running in started:
        if running.process.returncode is None:
            running.end(signal.SIGKILL)
    for running in started:
        # One that runs still is not of ours: it is the shared one, whose folder a test tried.
        if not Stack(running.settings).status()["running"]:
            Stack(running.settings).down()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def answers(settings: StackSettings) -> bool:
    with suppress(psycopg.OperationalError, httpx.HTTPError):
        psycopg.connect(settings.db_url).close()
        url = f"{settings.api_url}/functions/v1/health"
        return httpx.get(url, trust_env=False).status_code in (200, 503)
    return False


def server_processes(settings: StackSettings) -> list[int]:
    return running_in(settings.data_dir / "postgres", "postgres")


def test_it_tells_where_everything_is(stack: Any) -> None:
    settings = stack.settings

    assert stack.described == {
        "API_URL": f"http://127.0.0.1:{settings.api_port}",
        "DB_URL": f"postgresql://postgres:postgres@127.0.0.1:{settings.db_port}/postgres",
        "ANON_KEY": settings.anon_key,
        "SERVICE_ROLE_KEY": settings.service_role_key,
        "JWT_SECRET": settings.jwt_secret,
        "SIMPLEMDM_URL": settings.simplemdm_url,
        "SIMPLEMDM_KEY": settings.simplemdm_keys["full"],
        "GOLIOTH_URL": settings.golioth_url,
        "GOLIOTH_KEY": settings.golioth_key,
    }


def test_the_status_says_that_it_runs(stack: Any) -> None:
    status = Stack(stack.settings).status()

    assert (status["running"], status["database"], status["gateway"]) == (True, True, True)
    assert status["pid"] == stack.process.pid


def test_every_part_of_the_api_answers(stack: Any) -> None:
    api, key = stack.described["API_URL"], stack.described["SERVICE_ROLE_KEY"]
    with httpx.Client(
        trust_env=False, headers={"apikey": key, "Authorization": f"Bearer {key}"}
    ) as http:
        assert http.get(f"{api}/rest/v1/devices").status_code == 200
        message = {"topic": "t", "event": "e", "payload": {}, "private": True}
        sent = http.post(f"{api}/realtime/v1/api/broadcast", json={"messages": [message]})
        assert sent.status_code == 202
        assert http.get(f"{api}/functions/v1/health").status_code == 200


def test_browsers_of_any_origin_may_call(stack: Any) -> None:
    answer = httpx.options(
        f"{stack.described['API_URL']}/rest/v1/devices",
        headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "GET"},
        trust_env=False,
    )

    assert answer.headers["access-control-allow-origin"] == "*"


def test_the_ticker_runs_from_the_start(stack: Any) -> None:
    with stack.connect(autocommit=True) as conn:
        wait_for(
            lambda: (
                conn.execute(
                    "select (fleet.worker_health() ->> 'tick_age_seconds')::numeric < 3"
                ).fetchone()
                == (True,)
            ),
            seconds=10,
        )


def test_net_reaches_the_functions(stack: Any) -> None:
    with stack.connect(autocommit=True) as conn:
        url = f"{stack.described['API_URL']}/functions/v1/health"
        row = conn.execute("select net.http_get(%s)", (url,)).fetchone()
        conn.execute("select net._await_response(%s)", row)
        status = conn.execute("select status_code from net._http_response where id = %s", row)
        assert status.fetchone() in ((200,), (503,))


def test_the_functions_have_a_login_that_can_do_nothing_else(stack: Any) -> None:
    with stack.connect("fleet_worker") as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("select from public.devices")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("select fleet.tick()")
        assert conn.execute("select fleet.worker_health()").fetchone() is not None


def test_secrets_are_no_reading_for_other_accounts(stack: Any) -> None:
    settings = stack.settings

    assert (settings.data_dir / "secrets.json").stat().st_mode & 0o077 == 0
    assert (settings.data_dir / "socket").stat().st_mode & 0o077 == 0


def test_passwords_are_asked_for(stack: Any) -> None:
    url = stack.url("supabase_admin").replace(stack.settings.password("supabase_admin"), "guess")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_a_second_one_on_the_same_folder_is_refused(
    stack: Any, launch: Callable[..., RunningStack]
) -> None:
    second = launch(stack.settings)

    assert second.wait() == 1
    assert (
        f"running already on {stack.settings.data_dir} (process {stack.process.pid})"
        in second.said()
    )
    assert answers(stack.settings)


def test_a_port_that_is_taken_is_named(
    launch: Callable[..., RunningStack], stack_settings: Callable[[], StackSettings]
) -> None:
    settings = stack_settings()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", settings.api_port))
        other.listen()
        refused = launch(settings)
        assert refused.wait() == 1

    assert f"port {settings.api_port} is taken" in refused.said()
    assert "PGFLEET_LOCAL_API_PORT" in refused.said()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(launch: Callable[..., RunningStack], number: int) -> None:
    running = launch().wait_ready()
    gateway = int((running.settings.data_dir / "gateway.pid").read_text())

    assert running.end(number) == 0
    assert not is_alive(gateway)
    assert server_processes(running.settings) == []
    assert Stack(running.settings).status()["running"] is False


def test_a_signal_while_it_starts_leaves_nothing_behind(
    launch: Callable[..., RunningStack], stack_settings: Callable[[], StackSettings]
) -> None:
    running = launch(stack_settings())
    wait_for(running.said)

    assert running.end(signal.SIGTERM) == 0
    assert server_processes(running.settings) == []
    assert Stack(running.settings).down() is False
    assert answers(launch(running.settings).wait_ready().settings)


def test_down_stops_it_from_elsewhere(launch: Callable[..., RunningStack]) -> None:
    running = launch().wait_ready()

    assert Stack(running.settings).down() is True
    assert running.wait() == 0
    assert Stack(running.settings).down() is False


def test_what_was_killed_starts_again_with_its_data(launch: Callable[..., RunningStack]) -> None:
    running = launch().wait_ready()
    settings = running.settings
    with running.connect() as conn:
        conn.execute("create table public.kept as select 1 as one")
    servers = server_processes(settings)

    running.end(signal.SIGKILL)
    again = launch(settings).wait_ready()

    assert wait_gone(servers, 10)
    assert answers(settings)
    with again.connect() as conn:
        assert conn.execute("select one from public.kept").fetchone() == (1,)


def test_everything_killed_at_once_starts_again(launch: Callable[..., RunningStack]) -> None:
    running = launch().wait_ready()
    settings = running.settings
    postmaster = int((settings.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    gateway = int((settings.data_dir / "gateway.pid").read_text())

    running.end(signal.SIGKILL)
    for pid in (postmaster, gateway):
        send(pid, signal.SIGKILL)
    # The number in a stale pid file may be somebody else's by now: ours, in this case.
    pid_file = settings.data_dir / "postgres" / "postmaster.pid"
    wait_gone([postmaster], 10)
    pid_file.write_text(f"{running.process.pid}\n{settings.data_dir}/postgres\n")
    (settings.data_dir / "gateway.pid").write_text("1")

    launch(settings).wait_ready()
    assert answers(settings)


def test_parts_that_die_are_started_again(launch: Callable[..., RunningStack]) -> None:
    running = launch().wait_ready()
    settings = running.settings
    pid_files = (
        settings.data_dir / "gateway.pid",
        settings.data_dir / "postgres" / "postmaster.pid",
    )

    for pid_file in pid_files:
        killed = int(pid_file.read_text().split()[0])
        send(killed, signal.SIGKILL)
        wait_gone([killed], 10)
        wait_for(lambda: answers(settings))

    assert "gateway ended, starting it again" in running.said()
    assert "database ended, starting it again" in running.said()


def test_a_platform_that_moved_to_another_folder_and_port_ticks_on(
    launch: Callable[..., RunningStack],
) -> None:
    # A copy of a cluster that was made elsewhere, whose jobs name the place where they were made.
    running = launch().wait_ready()

    def ticks() -> bool:
        with running.connect() as conn:
            row = conn.execute(
                "select last_tick_at > pg_postmaster_start_time() from fleet.heartbeat"
            ).fetchone()
        return bool(row and row[0])

    # Not only at the next full minute: what runs at the start of the server runs.
    wait_for(ticks, 20)


def test_it_ticks_again_after_every_connection_was_terminated(
    launch: Callable[..., RunningStack],
) -> None:
    # What drops a database, or a test that cleans up, does; older releases of pg_cron end with it.
    running = launch().wait_ready()
    running.wait_well()
    with running.connect("supabase_admin", autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname is not null and pid <> pg_backend_pid()"
        )
        admin.execute("update fleet.heartbeat set last_tick_at = now() - interval '1 hour'")

    running.wait_well(90)


def test_keys_in_addresses_are_in_no_log(stack: RunningStack) -> None:
    key, port = stack.settings.service_role_key, stack.settings.api_port
    url = f"ws://127.0.0.1:{port}/realtime/v1/websocket?apikey={key}"
    with connect(f"{url}&vsn=1.0.0"):
        pass
    with pytest.raises(InvalidStatus):
        connect(f"{url}&vsn=9")
    stack.call("GET", f"/realtime/v1/api/none?apikey={key}")

    assert key not in (stack.settings.data_dir / "gateway.log").read_text()
