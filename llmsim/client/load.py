"""Sending: at the planned times (open loop), or whenever one of N clients has its answer (closed loop).

Bodies are made ahead, so that a request leaves when it is due and not after its JSON is written.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

from llmsim.client.exchange import Clock
from llmsim.client.record import Record
from llmsim.units import MILLISECOND, SECOND

Send = Callable[[bytes, Record], Awaitable[None]]

AHEAD_BYTES = 64 << 20
"""Bodies that are kept ready."""
MARGIN_NS = 3 * MILLISECOND
"""Time before a due request in which no further body is made."""
LAG_EVERY_S = 0.01


class Bodies:
    """The bodies of the requests, in their order, made ahead where there is time."""

    def __init__(self, records: Sequence[Record], make: Callable[[Record], bytes], clock: Clock) -> None:
        self._left: Iterator[Record] = iter(records)
        self._make = make
        self._clock = clock
        self._ready: deque[bytes] = deque()
        self._bytes = 0

    def fill(self, until_ns: int | None = None) -> None:
        """Make bodies until that time (None: until enough are ready)."""
        while self._bytes < AHEAD_BYTES and (until_ns is None or self._clock.now() < until_ns):
            record = next(self._left, None)
            if record is None:
                return
            self._ready.append(self._make(record))
            self._bytes += len(self._ready[-1])

    def take(self) -> bytes:
        """The next one, made now if none is ready."""
        if not self._ready:
            return self._make(next(self._left))
        body = self._ready.popleft()
        self._bytes -= len(body)
        return body


async def open_loop(records: Sequence[Record], bodies: Bodies, send: Send, clock: Clock) -> None:
    """Send each record at its `planned_ns`, whatever becomes of the others; returns when all have ended."""
    async with asyncio.TaskGroup() as group:
        for record in records:
            bodies.fill(record.planned_ns - MARGIN_NS)
            body = bodies.take()
            await asyncio.sleep(max(record.planned_ns - clock.now(), 0) / SECOND)  # at least lets the others run
            group.create_task(_sent(send, body, record))


async def _sent(send: Send, body: bytes, record: Record) -> None:
    await send(body, record)


async def closed_loop(records: Sequence[Record], bodies: Bodies, send: Send, concurrency: int) -> None:
    """Keep `concurrency` requests in flight; a record's `planned_ns` becomes the end of the answer before it."""
    following = iter(records)

    async def client() -> None:
        free_ns = 0
        for record in following:  # shared: each record is taken by one client
            record.planned_ns = free_ns
            await send(bodies.take(), record)
            free_ns = record.ended_ns

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(records))):
            group.create_task(client())


async def watch_lag(lags: array[int], clock: Clock) -> None:
    """Append, for ever, by how much (ns) the event loop wakes late: times of tokens are late by as much at most."""
    pause = round(LAG_EVERY_S * SECOND)
    while True:
        due = clock.now() + pause
        await asyncio.sleep(LAG_EVERY_S)
        lags.append(clock.now() - due)
