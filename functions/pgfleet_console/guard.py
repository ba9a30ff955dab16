"""What every answer is told to browsers, and which requests are not answered at all."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing but our own files runs or is drawn, nobody frames us, and nothing leaves us.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


class Guard:
    """Answer only to the names that the console goes by, and tell browsers to be strict."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], image_sources: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        # Servers of tiles want to know who asks; they hear the name of the console, and no page.
        self._referrer = "strict-origin-when-cross-origin" if image_sources else "same-origin"
        self._policy = POLICY.replace(
            "img-src 'self' data:", " ".join(("img-src 'self' data:", *image_sources))
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not self._is_ours(Headers(scope=scope).get("host", "")):
            # A name that leads here without being ours is how a foreign page gets at us.
            refusal = PlainTextResponse(
                "The console does not go by this name. An operator names those that it has.",
                status_code=421,
            )
            await refusal(scope, receive, send)
            return

        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self._policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = self._referrer
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_strict)

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        return "*" in self._hosts or name in self._hosts or _without_port(name) in self._hosts


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
