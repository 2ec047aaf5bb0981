"""One request over HTTP: send it, stamp every piece of the answer as it arrives, and never raise for a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp

from llmsim.client.record import BROKEN, INTERRUPTED, UNFINISHED, Record
from llmsim.client.sse import SseDecoder

KEEP_ALIVE_S = 3.0
"""Idle connections are closed after this, before the server does: uvicorn closes them after 5 s, and a request that
goes into a connection that is just being closed would count as failed."""

NO_STREAM = "no stream"
TIMEOUT, NO_CONNECTION, LOST = "timeout", "no connection", "connection lost"


@dataclass(slots=True)
class Clock:
    """Int ns since `start`."""

    origin_ns: int = field(default_factory=time.perf_counter_ns)

    def start(self) -> None:
        """Now is 0."""
        self.origin_ns = time.perf_counter_ns()

    def now(self) -> int:
        """Ns since the start."""
        return time.perf_counter_ns() - self.origin_ns


@dataclass(frozen=True, slots=True)
class Wire:
    """Where requests go, over which connections, on which clock."""

    session: aiohttp.ClientSession
    url: str
    clock: Clock

    async def exchange(self, body: bytes, record: Record) -> None:
        """Send `body` and follow the answer to its end; `record` then says what came of it.

        Raises only CancelledError, with the record marked as unfinished.
        """
        record.arrival_ns = self.clock.now()
        started = False
        try:
            async with self.session.post(self.url, data=body, trace_request_ctx=record) as response:
                started = response.status == 200
                await self._follow(response, record)
        except asyncio.CancelledError:
            record.fail(INTERRUPTED, status=UNFINISHED)
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            record.fail(_reason(error, started), str(error) or type(error).__name__)
        finally:
            record.end(self.clock.now())

    async def _follow(self, response: aiohttp.ClientResponse, record: Record) -> None:
        if response.status != 200:
            record.fail(f"HTTP {response.status}", (await response.content.read(2000)).decode(errors="replace"))
            return
        if response.content_type != "text/event-stream":
            record.fail(NO_STREAM, f"the answer is {response.content_type}, not text/event-stream")
            return
        decoder, now = SseDecoder(), self.clock.now
        async for piece in response.content.iter_any():
            at = now()  # before anything is done with the bytes
            for data in decoder.feed(piece):
                record.take(data, at)
        at = now()
        for data in decoder.finish():
            record.take(data, at)


def _reason(error: Exception, started: bool) -> str:
    """The kind of failure, few enough to count; `started`: the server had begun to answer."""
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorError):
        return NO_CONNECTION
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError | ConnectionError):
        return BROKEN if started else LOST
    return type(error).__name__


def open_session(clock: Clock, headers: Mapping[str, str], timeout_s: float) -> aiohttp.ClientSession:
    """A session that opens as many connections as there are requests in flight; call it inside the event loop."""

    async def on_sent(_: object, context: SimpleNamespace, __: object) -> None:
        if isinstance(context.trace_request_ctx, Record):
            context.trace_request_ctx.sent_ns = clock.now()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(on_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers={"Content-Type": "application/json", **headers},
        trace_configs=[trace],
    )
