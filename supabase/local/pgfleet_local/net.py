"""Sending what `net.http_*` has queued, where the real pg_net is not there to do it.

The worker keeps the pace of pg_net: a batch is one transaction, which waits for the slowest of its
answers; all of them become visible together, and a pause follows. Without `pace` requests go out as
soon as their transaction has committed, and each answer is stored as soon as it is there: tests are
quicker so, and blind to what the pace does to those who rely on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgfleet_local.background import STEADY_SECONDS, Backoff

logger = logging.getLogger(__name__)

# Held while a worker serves a database; net.check_worker_is_up() looks for it.
LOCK = (1885827700, 1)
USER_AGENT = "pg_net/0.20.4"
FORM = "application/x-www-form-urlencoded"
PACED_PAUSE_SECONDS = 1.0
RETRY_SECONDS = 0.5
# Sooner than the servers of our own functions, which end a connection that is idle for 5 s.
KEEP_ALIVE_SECONDS = 2.0
FAREWELL_SECONDS = 5.0

TAKE = """
delete from net.http_request_queue as q
where q.id in (
  select oldest.id
  from net.http_request_queue as oldest
  order by oldest.id
  limit %s
)
returning q.id, q.method, q.url, q.headers, q.body, q.timeout_milliseconds
"""

STORE = """
insert into net._http_response
  (id, status_code, content_type, headers, content, timed_out, error_msg)
values (%s, %s, %s, %s, %s, %s, %s)
"""

EXPIRE = """
delete from net._http_response as r
where r.ctid in (
  select old.ctid
  from net._http_response as old
  where old.created < now() - make_interval(secs => %s)
  order by old.created
  limit %s
)
"""


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A row of the queue."""

    id: int
    method: str
    url: str
    headers: Any
    body: bytes | None
    timeout_milliseconds: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A row of `net._http_response`."""

    id: int
    status_code: int | None = None
    content_type: str | None = None
    headers: dict[str, str] | None = None
    content: str | None = None
    timed_out: bool | None = None
    error_msg: str | None = None

    def values(self) -> tuple[Any, ...]:
        """Give the row's values in the order of STORE."""
        headers = Jsonb(self.headers) if self.headers is not None else None
        return (
            *(self.id, self.status_code, self.content_type, headers),
            *(self.content, self.timed_out, self.error_msg),
        )


class NetWorker:
    """The worker of one database."""

    def __init__(
        self,
        dsn: str,
        *,
        pace: bool = True,
        batch_size: int = 200,
        ttl_seconds: float = 6 * 3600,
    ) -> None:
        self._dsn = dsn
        self._pace = pace
        self._batch_size = batch_size
        self._ttl_seconds = ttl_seconds
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the queue for as long as the block lasts; what is on its way is finished."""
        self._stopping.clear()
        task = asyncio.create_task(self._serve(), name="pgfleet-net")
        try:
            yield
        finally:
            self._stopping.set()
            self._wake.set()
            _, unfinished = await asyncio.wait([task], timeout=FAREWELL_SECONDS)
            if unfinished:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _serve(self) -> None:
        """Serve until told to stop; nothing that people queue or drop ends the worker for good."""
        backoff = Backoff(RETRY_SECONDS)
        async with _client(self._batch_size) as client:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    if not await self._serve_connected(client):
                        return
                except psycopg.OperationalError as error:
                    logger.warning("net worker lost the database: %s", error)
                except Exception:
                    logger.exception("net worker failed; it is started again")
                if time.monotonic() - began > STEADY_SECONDS:
                    backoff.reset()
                await self._sleep(backoff.pause())

    async def _serve_connected(self, client: httpx.AsyncClient) -> bool:
        """Serve until stopped or cut off; false when this database needs no stand-in."""
        async with await self._connect() as ears, await self._connect() as hands:
            cursor = await ears.execute("select from pg_extension where extname = 'pg_net'")
            if await cursor.fetchone():
                return False
            while not self._stopping.is_set():
                cursor = await ears.execute("select pg_try_advisory_lock(%s, %s)", LOCK)
                if await cursor.fetchone() == (True,):
                    break
                await self._sleep(RETRY_SECONDS)
            await ears.execute("listen pgfleet_net")
            self._wake.set()
            work = self._work_paced if self._pace else self._work
            await _until_one_ends(self._listen(ears), work(client, hands))
        return True

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._dsn,
            autocommit=True,
            # A plan may not outlive the tables that it was made for.
            prepare_threshold=None,
            application_name="pg_net stand-in",
        )

    async def _listen(self, ears: psycopg.AsyncConnection) -> None:
        async for _ in ears.notifies():
            self._wake.set()

    async def _work(self, client: httpx.AsyncClient, hands: psycopg.AsyncConnection) -> None:
        """Send at once whatever is queued, a batch's worth at most being on the way."""
        under_way: set[asyncio.Task[Answer]] = set()
        waking: asyncio.Task[bool] = asyncio.create_task(self._wake.wait())
        try:
            while not self._stopping.is_set():
                await asyncio.wait([waking, *under_way], return_when=asyncio.FIRST_COMPLETED)
                if waking.done():
                    self._wake.clear()
                    await self._expire(hands)
                done = {task for task in under_way if task.done()}
                under_way -= done
                await _store(hands, [task.result() for task in done])
                if (waking.done() or done) and not self._stopping.is_set():
                    free = self._batch_size - len(under_way)
                    under_way |= {
                        asyncio.create_task(send(client, request))
                        for request in await _take(hands, free)
                    }
                if waking.done():
                    waking = asyncio.create_task(self._wake.wait())
            await _store(hands, await asyncio.gather(*under_way))
        finally:
            for task in (waking, *under_way):
                task.cancel()

    async def _work_paced(self, client: httpx.AsyncClient, hands: psycopg.AsyncConnection) -> None:
        """Send batch by batch, with pg_net's two kinds of waiting.

        A wake that comes while batches go out is remembered, and the first of them cuts one pause
        short; all that follow it wait for the end of theirs.
        """
        while True:
            await self._wake.wait()
            if self._stopping.is_set():
                return
            self._wake.clear()
            cut_short, worked = False, True
            while worked and not self._stopping.is_set():
                worked = await self._send_batch(client, hands)
                if cut_short:
                    await self._sleep(PACED_PAUSE_SECONDS)
                else:
                    cut_short = await self._woken_within(PACED_PAUSE_SECONDS)

    async def _send_batch(self, client: httpx.AsyncClient, hands: psycopg.AsyncConnection) -> bool:
        """Send what is queued in one transaction; tell whether there was anything to do."""
        async with hands.transaction():
            expired = await self._expire(hands)
            batch = await _take(hands, self._batch_size)
            await _store(hands, await asyncio.gather(*(send(client, one) for one in batch)))
        return bool(batch or expired)

    async def _woken_within(self, seconds: float) -> bool:
        """Wait for a wake, which is left to be seen again; tell whether it came in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def _expire(self, hands: psycopg.AsyncConnection) -> int:
        return (await hands.execute(EXPIRE, (self._ttl_seconds, self._batch_size))).rowcount

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not through being stopped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until one of them ends, however it does, and end the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def send(client: httpx.AsyncClient, request: QueuedRequest) -> Answer:
    """Send one request and tell what came of it; whatever goes wrong is told of it alone."""
    if request.headers is not None and not isinstance(request.headers, dict):
        return Answer(request.id, timed_out=False, error_msg="the headers are no JSON object")
    if request.timeout_milliseconds < 0:
        message = "A libcurl function was given a bad argument"
        return Answer(request.id, timed_out=False, error_msg=message)
    started = time.monotonic()
    seconds = request.timeout_milliseconds / 1000 or None
    try:
        async with asyncio.timeout(seconds):
            response = await client.request(
                request.method.upper(),
                request.url,
                headers=_headers(request),
                content=request.body,
            )
    except TimeoutError:
        total = (time.monotonic() - started) * 1000
        return Answer(
            request.id,
            timed_out=True,
            error_msg=f"Timeout of {request.timeout_milliseconds} ms reached. "
            f"Total time: {total:f} ms (DNS time: 0.000000 ms, TCP/SSL handshake time: "
            f"0.000000 ms, HTTP Request/Response time: {total:f} ms)",
        )
    except Exception as error:
        return Answer(request.id, timed_out=False, error_msg=_reason(error))
    return _answer(request.id, response)


def _answer(request_id: int, response: httpx.Response) -> Answer:
    try:
        content = None if response.status_code == 204 else response.content.decode()
    except UnicodeDecodeError:
        return Answer(request_id, timed_out=False, error_msg="the response is not valid UTF-8")
    if content and "\0" in content:
        return Answer(request_id, timed_out=False, error_msg="the response has a NUL byte")
    return Answer(
        request_id,
        response.status_code,
        response.headers.get("content-type"),
        dict(response.headers),
        content,
        False,
    )


def _headers(request: QueuedRequest) -> list[tuple[str, str]]:
    # One's own user agent goes out beside the default, as it does from pg_net.
    headers = [("Accept", "*/*"), ("User-Agent", USER_AGENT)]
    given = [(name, str(value)) for name, value in (request.headers or {}).items()]
    if request.body is not None and not any(name.lower() == "content-type" for name, _ in given):
        headers.append(("Content-Type", FORM))
    return headers + given


def _reason(error: Exception) -> str:
    """Give the words that curl, and so pg_net, has for the error."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "Couldn't resolve host name"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (httpx.InvalidURL, OverflowError)):
        return "URL using bad/illegal format or missing URL"
    if isinstance(error, httpx.UnsupportedProtocol):
        return "Unsupported protocol"
    if isinstance(error, httpx.ConnectError):
        return "Couldn't connect to server"
    if isinstance(error, httpx.RemoteProtocolError):
        return "Server returned nothing (no headers, no data)"
    if isinstance(error, httpx.TooManyRedirects):
        return "Number of redirects hit maximum amount"
    return str(error) or type(error).__name__


def _client(connections: int) -> httpx.AsyncClient:
    client = httpx.AsyncClient(
        follow_redirects=True,
        timeout=None,
        trust_env=False,
        limits=httpx.Limits(max_connections=connections, keepalive_expiry=KEEP_ALIVE_SECONDS),
        # What one server sets is no other request's to send.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )
    for name in ("accept", "accept-encoding", "user-agent"):
        del client.headers[name]
    return client


async def _take(hands: psycopg.AsyncConnection, limit: int) -> list[QueuedRequest]:
    if limit <= 0:
        return []
    async with hands.cursor(row_factory=class_row(QueuedRequest)) as cursor:
        await cursor.execute(TAKE, (limit,))
        return sorted(await cursor.fetchall(), key=lambda request: request.id)


async def _store(hands: psycopg.AsyncConnection, answers: Iterable[Answer]) -> None:
    rows = [answer.values() for answer in answers]
    if rows:
        async with hands.cursor() as cursor:
            await cursor.executemany(STORE, rows)
