"""pgfleet functions: making the login, and serving."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from pgfleet_functions.setup import WORKER, ensure_worker_role

Pgfleet = Any


@pytest.fixture
def admin(bare: Pgfleet, own_database: Any) -> Iterator[Any]:
    """Give a function that runs a command as who may make roles, leaving the role as it was."""
    url = own_database.url("supabase_admin")
    # Roles belong to the whole cluster: other tests may have made it, or must not find it.
    was_there = exists(url)
    yield lambda *words: bare("-d", url, *words)
    with psycopg.connect(url) as conn:
        if was_there:
            ensure_worker_role(conn, own_database.settings.password(WORKER))
        else:
            for statement in ("drop owned by {}", "drop role {}"):
                conn.execute(sql.SQL(statement).format(sql.Identifier(WORKER)))


def exists(url: str) -> bool:
    with psycopg.connect(url) as conn:
        found = conn.execute("select from pg_roles where rolname = %s", (WORKER,))
        return found.fetchone() is not None


def test_setup_makes_a_login_that_may_only_work(admin: Any, own_database: Any) -> None:
    address = "https://example.com/functions/v1"
    made = admin("functions", "setup", "--url", address, "--yes", "--json")

    url = made.data["PGFLEET_FUNCTIONS_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as conn:
        assert conn.execute("select fleet.worker_health() -> 'ok'").fetchone() == (False,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select * from public.devices")
    with psycopg.connect(own_database.url()) as conn:
        kept = conn.execute("select fleet.setting('functions_url') #>> '{}'").fetchone()
        assert kept == (address,)


def test_second_setup_wants_a_yes_because_it_changes_the_password(admin: Any) -> None:
    first = admin("functions", "setup", "--yes", "--json")
    refused = admin("functions", "setup", "--json")
    second = admin("functions", "setup", "--yes", "--json")

    assert (first.code, refused.code, second.code) == (0, 1, 0)
    assert first.data != second.data


def test_trying_a_setup_leaves_the_password_as_it_is(admin: Any, own_database: Any) -> None:
    url = admin("functions", "setup", "--yes", "--json").data["PGFLEET_FUNCTIONS_DATABASE_URL"]

    tried = admin("functions", "setup", "--dry-run", "--url", "https://example.com/other")

    assert "Dry run" in tried.err
    assert "postgresql://" not in tried.out
    with psycopg.connect(url) as conn:
        setting = conn.execute("select fleet.worker_health() is not null").fetchone()
    assert setting == (True,)
    with psycopg.connect(own_database.url()) as conn:
        row = conn.execute("select fleet.setting('functions_url')").fetchone()
    assert row is not None
    assert row[0] != "https://example.com/other"


def test_serving_without_settings_names_what_is_missing(bare: Pgfleet) -> None:
    answer = bare("functions", "run")

    assert answer.code == 1
    assert "PGFLEET_FUNCTIONS_DATABASE_URL" in answer.err
    assert "Hint: pgfleet functions setup" in answer.err


def test_served_functions_answer_at_both_paths(
    own_database: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgfleet", "functions", "run", "--port", str(port)],
        env={
            **os.environ,
            "PGFLEET_FUNCTIONS_DATABASE_URL": own_database.url(),
            "SUPABASE_JWT_SECRET": "0" * 64,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "running on" in line:
                break
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            answers = [client.get(path) for path in ("/health", "/functions/v1/health")]
            unknown = client.get("/nowhere")
    finally:
        process.terminate()
        process.communicate(timeout=20)

    # Nothing ticks in a cloned database, and that is what health is about.
    assert [answer.status_code for answer in answers] == [503, 503]
    assert answers[0].json() == answers[1].json()
    assert unknown.status_code == 404


FORWARDING = """
import { createServer } from "node:http";
let handler;
globalThis.Deno = {
  serve: (given) => { handler = given; },
  env: { get: (name) => process.env[name] },
};
const heard = [];
const server = createServer((request, response) => {
  const body = [];
  request.on("data", (some) => body.push(some));
  request.on("end", () => {
    const { method, url, headers } = request;
    heard.push([method, url, headers.authorization, Buffer.concat(body).toString()]);
    response.writeHead(202, { "content-type": "application/json", "x-told": "yes" });
    response.end("{}");
  });
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
await import(process.argv[2]);
const call = (method, path, body) => handler(new Request(`http://edge.example${path}`, {
  method, body, headers: { authorization: "Bearer secret-7" } }));
const unset = await call("POST", "/auto-sync-cron", "{}");
process.env.PGFLEET_FUNCTIONS_URL = `http://127.0.0.1:${server.address().port}/functions/v1/`;
const answers = [
  await call("POST", "/functions/v1/integration-webhook/abc?x=1", '{"t": 1}'),
  await call("POST", "/integration-webhook/abc", "2"),
  await call("GET", "/auto-sync-cron"),
];
server.close();
const told = answers.map((one) => [one.status, one.headers.get("x-told")]);
console.log(JSON.stringify({ unset: unset.status, heard, told }));
"""


def test_forwarders_pass_calls_on_as_they_came(bare: Pgfleet, tmp_path: Any) -> None:
    node = shutil.which("node")
    assert node is not None, "node is missing, which the tests of the clients need as well"
    assert bare("functions", "forwarders", "--folder", str(tmp_path)).code == 0
    written = sorted(path.parent.name for path in tmp_path.glob("*/index.ts"))
    assert written == ["auto-sync-cron", "integration-webhook"]
    # Without its two annotations it is what node runs, too.
    source = (tmp_path / "auto-sync-cron" / "index.ts").read_text()
    plain = source.replace(": Request): Promise<Response>", ")")
    (tmp_path / "index.mjs").write_text(plain)
    (tmp_path / "try.mjs").write_text(FORWARDING)

    done = subprocess.run(
        [node, str(tmp_path / "try.mjs"), str(tmp_path / "index.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["unset"] == 503
    path = "/functions/v1/integration-webhook/abc"
    assert found["heard"] == [
        ["POST", f"{path}?x=1", "Bearer secret-7", '{"t": 1}'],
        ["POST", path, "Bearer secret-7", "2"],
        ["GET", "/functions/v1/auto-sync-cron", "Bearer secret-7", ""],
    ]
    assert found["told"] == [[202, "yes"]] * 3
