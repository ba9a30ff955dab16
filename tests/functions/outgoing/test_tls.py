"""Webhooks over TLS: the connection is to an address, the certificate is of the name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.helpers.sandbox import wait_until

from pgfleet_functions.notify.messages import Delivery, Outcome
from pgfleet_functions.notify.webhook import deliver_webhook
from pgfleet_functions.outgoing.transport import Outgoing
from pgfleet_local.settings import HOST


def make_certificate(folder: Path, name: str) -> Path:
    """Write a certificate for one name, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@contextmanager
def receiving(certificate: Path, port: int) -> Iterator[list[str]]:
    """Serve HTTPS, and give the host names that requests were for."""
    hosts: list[str] = []

    async def take(request: Request) -> Response:
        hosts.append(request.headers["host"])
        return Response(status_code=200)

    app = Starlette(routes=[Route("/hook", take, methods=["POST"])])
    config = uvicorn.Config(
        app, host=HOST, port=port, log_level="critical", ws="none", ssl_certfile=str(certificate)
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield hosts
    finally:
        server.should_exit = True
        thread.join(20)


def deliver(port: int) -> Outcome:
    delivery = Delivery(
        delivery_id=1,
        attempt=1,
        event="run.failed",
        event_id="evt_1",
        channel="webhook",
        url=f"https://localhost:{port}/hook",
        email=None,
        headers={"webhook-id": "evt_1"},
        body="{}",
        allow_private=True,
    )

    async def send() -> Outcome:
        async with aclosing(Outgoing()) as outgoing:
            return await deliver_webhook(outgoing, delivery)

    return asyncio.run(send())


def test_the_certificate_is_checked_against_the_name(
    tmp_path: Path, free_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, port = make_certificate(tmp_path, "localhost"), free_port()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(certificate, port) as hosts:
        assert deliver(port) == Outcome("delivered", 200)
    assert hosts == [f"localhost:{port}"]


def test_a_certificate_of_another_name_is_refused(
    tmp_path: Path, free_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, port = make_certificate(tmp_path, "other.example.com"), free_port()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(certificate, port) as hosts:
        outcome = deliver(port)
    assert (outcome.kind, hosts) == ("retry", [])
    assert "certificate" in str(outcome.error)


def test_an_authority_that_nobody_trusts_is_refused(tmp_path: Path, free_port: Any) -> None:
    certificate, port = make_certificate(tmp_path, "localhost"), free_port()
    with receiving(certificate, port) as hosts:
        outcome = deliver(port)
    assert (outcome.kind, hosts) == ("retry", [])
    assert "certificate" in str(outcome.error)
