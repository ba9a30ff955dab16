"""A small S3: objects in memory, whole or in parts, for one key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class SmallS3:
    """What was put, and how."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.url = ""
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        # Which objects were read by addresses, and with which signatures.
        self.read: list[tuple[str, str]] = []
        # So many requests with a part are answered with a fault first.
        self.faults = 0

    def answer(
        self, method: str, path: str, asked: dict[str, list[str]], body: bytes, signed: str
    ) -> tuple[int, str, dict[str, str]]:
        """Answer one request."""
        if method == "GET" and asked.get("X-Amz-Signature") and not signed:
            self.read.append((path, asked["X-Amz-Signature"][0]))
            return (200 if path in self.objects else 404), "", {}
        if not signed.startswith(f"AWS4-HMAC-SHA256 Credential={self.key_id}/"):
            return 403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>", {}
        if method == "POST" and "uploads" in asked:
            self.parts[path] = {}
            upload = f"<UploadId>{len(self.parts)}</UploadId>"
            said = f"<InitiateMultipartUploadResult>{upload}</InitiateMultipartUploadResult>"
            return 200, said, {}
        if method == "PUT" and "partNumber" in asked:
            if self.faults:
                self.faults -= 1
                return 503, "<Error><Code>SlowDown</Code></Error>", {}
            self.parts[path][int(asked["partNumber"][0])] = body
            return 200, "", {"ETag": '"part"'}
        if method == "POST" and "uploadId" in asked:
            self.objects[path] = b"".join(part for _, part in sorted(self.parts.pop(path).items()))
            return 200, "<CompleteMultipartUploadResult/>", {}
        if method == "PUT":
            self.objects[path] = body
            return 200, "", {"ETag": '"whole"'}
        return 405, "<Error><Code>MethodNotAllowed</Code></Error>", {}


@contextmanager
def small_s3(key_id: str) -> Iterator[SmallS3]:
    """Serve one on this machine."""
    store = SmallS3(key_id)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            where = urlsplit(self.path)
            asked = parse_qs(where.query, keep_blank_values=True)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, said, headers = store.answer(
                *(self.command, unquote(where.path), asked, body),
                self.headers.get("authorization") or "",
            )
            content = said.encode()
            if self.command == "GET" and status == 200:
                content = store.objects[unquote(where.path)]
                first = self.headers.get("range", "bytes=0-")[6:-1]
                if self.headers.get("range"):
                    status, whole = 206, len(content)
                    headers = {"Content-Range": f"bytes {first}-{whole - 1}/{whole}"}
                content = content[int(first) :]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST = do_GET = _handle

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
