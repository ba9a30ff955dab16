"""The doctor finds nothing on a fresh platform, and what is broken there it names and mends."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.helpers.running_stack import RunningStack
from typer.testing import CliRunner

from pgfleet.main import app
from pgfleet.nouns.doctor import here
from pgfleet_local.settings import StackSettings

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def platform(prepared_settings: Callable[[], StackSettings]) -> Iterator[StackSettings]:
    """Run a platform that nobody has used."""
    running = RunningStack(prepared_settings())
    try:
        running.wait_ready()
        running.wait_well()
        yield running.settings
    finally:
        running.end()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder without any file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
    return tmp_path


def doctor(platform: StackSettings, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Give how it ended, and what is not well by its name."""
    given = ["-d", platform.db_url, "doctor", "--json", *words]
    answer = CliRunner().invoke(app, given, prog_name="pgfleet")
    assert answer.stdout, answer.output
    found = {row["name"]: row for row in json.loads(answer.stdout)}
    return answer.exit_code, {n: row for n, row in found.items() if row["state"] != "ok"}


def test_a_fresh_platform_is_well(platform: StackSettings) -> None:
    code, found = doctor(platform)
    assert (code, {row["state"] for row in found.values()}) == (0, {"unknown"}), found


def test_what_can_be_mended_is_mended_when_asked_for(platform: StackSettings, folder: Path) -> None:
    secrets = [folder / ".env", folder / "passwords"]
    for file in secrets:
        file.write_text("secret")
        file.chmod(0o644)
    with psycopg.connect(platform.db_url, autocommit=True) as conn:
        conn.execute("select cron.unschedule('pgfleet-watch')")
        conn.execute(
            "select cron.alter_job(jobid, active => false) from cron.job"
            " where jobname = 'pgfleet-prune-history'"
        )
        conn.execute("alter publication supabase_realtime drop table public.device_commands")
        jobs = "select labels ->> 'job', value::int from fleet.metrics(now()) where name = %s"
        told = dict(conn.execute(jobs, ("pgfleet_job_active",)).fetchall())
        kept = "select jobname, active::int from cron.job where jobname like 'pgfleet-%%'"
        assert told == dict(conn.execute(kept, ()).fetchall())
        assert told["pgfleet-prune-history"] == 0 < told["pgfleet-tick"]

    code, found = doctor(platform)
    assert (code, found["jobs"]["state"]) == (1, "broken")
    assert "pgfleet-prune-history, pgfleet-watch" in found["jobs"]["found"]
    assert found["publication"]["state"] == "broken"
    assert found["private_files"]["state"] == "broken"
    assert all("pgfleet doctor --fix" in found[name]["hint"] for name in ("jobs", "publication"))

    assert doctor(platform, "--fix", "--dry-run")
    assert doctor(platform)[1].keys() >= {"jobs", "publication", "private_files"}
    code, found = doctor(platform, "--fix")
    assert (code, {row["state"] for row in found.values()}) == (0, {"unknown"}), found
    assert [file.stat().st_mode & 0o777 for file in secrets] == [0o600, 0o600]


def test_a_job_that_fails_is_named(platform: StackSettings) -> None:
    with psycopg.connect(platform.url("supabase_admin"), autocommit=True) as conn:
        conn.execute(
            "insert into cron.job_run_details (jobid, runid, status)"
            " select jobid, 1000000000, 'failed' from cron.job"
            " where jobname = 'pgfleet-tend-telemetry'"
        )
        assert "pgfleet-tend-telemetry" in doctor(platform)[1]["jobs_succeed"]["found"]
        conn.execute("delete from cron.job_run_details where runid = 1000000000")


def test_a_schema_of_another_version_is_told(platform: StackSettings) -> None:
    with psycopg.connect(platform.db_url, autocommit=True) as conn:
        (digest,) = conn.execute("select digest from fleet_ledger.sources").fetchone() or ("",)
        conn.execute("update fleet_ledger.sources set digest = 'older'")
        code, found = doctor(platform)
        conn.execute("update fleet_ledger.sources set digest = %s", (digest,))
    assert (code, found["schema"]["state"]) == (1, "broken")
    assert "pgfleet db migrate" in found["schema"]["hint"]


@pytest.mark.parametrize(
    ("apart", "state"), [(0, "ok"), (1.5, "ok"), (-7, "warning"), (9, "warning")]
)
def test_a_clock_that_is_wrong_is_told(apart: float, state: str) -> None:
    def ask() -> str:
        return (datetime.now(UTC) + timedelta(seconds=apart)).isoformat()

    assert here.clock(ask)["state"] == state


@contextmanager
def answering(first: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Listen, and answer everybody with the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                with caller:
                    try:
                        if context is not None:
                            caller = context.wrap_socket(caller, server_side=True)
                        caller.recv(4096)
                        caller.sendall(first)
                    except OSError:
                        continue
                    finally:
                        caller.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "answer with 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "do not answer"),
        (b"", "do not answer"),
    ],
)
def test_functions_that_are_not_there_are_told(first: bytes, said: str) -> None:
    with answering(first) as port:
        told = here.functions(f"http://127.0.0.1:{port}")
    assert (told["state"], said in told["found"]) == ("broken", True), told
    assert here.functions(f"http://127.0.0.1:{port}")["state"] == "broken"
    assert here.functions(None)["state"] == "ok"


def certified(folder: Path, days: int) -> ssl.SSLContext:
    """Make a certificate for localhost that ends in so many days, and trust nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    (folder / "trusted.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(
    ("days", "trusted", "state"),
    [(90, True, "ok"), (9, True, "warning"), (-1, True, "broken"), (90, False, "broken")],
)
def test_a_certificate_that_ends_is_told_in_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, days: int, trusted: bool, state: str
) -> None:
    context = certified(folder, days)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "trusted.pem"))
    with answering(b"", context) as port:
        told = here.certificate(f"https://localhost:{port}/functions/v1")
    assert told["state"] == state, told
