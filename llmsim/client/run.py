"""bench(spec) -> Result: check the server, send the workload, and make the tables of what came back."""

from __future__ import annotations

import asyncio
import gc
import secrets
from array import array
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.client import load
from llmsim.client.exchange import Clock, Wire, open_session
from llmsim.client.outcome import Measured, measured_result
from llmsim.client.protocol import body
from llmsim.client.ready import Listing, Server, list_models, prepare, warm_up
from llmsim.client.record import Record
from llmsim.errors import ConfigError
from llmsim.traces.workload import Workload, build_workload

if TYPE_CHECKING:
    from llmsim.client.spec import BenchSpec
    from llmsim.runs.results import Result

Progress = Callable[[int, int], None]
"""Called with (requests done, requests in all), about every hundredth of the run."""

WARM_UP_OUTPUT = 16
"""Most tokens that a warm-up request asks for."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A spec on its way: the server was checked, the workload built."""

    spec: BenchSpec
    wire: Wire
    listing: Listing
    server: Server
    workload: Workload
    records: list[Record]


async def bench(
    spec: BenchSpec,
    *,
    headers: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    progress: Progress | None = None,
) -> Result:
    """Replay the workload against the server and measure it.

    `headers` go with every request (keys belong here: they are in no file). `wait_s` seconds are waited for a server
    that does not answer yet. If the task is cancelled (Ctrl-C under asyncio.run) once the run has begun, what was
    measured is returned and `summary['client']['interrupted']` is true. Raises EndpointError for a server that cannot
    be reached or refuses what is asked, ConfigError and TraceError as `simulate` does. Failed requests raise nothing:
    they are rows.
    """
    if spec.workload.hash_block_size is not None:
        raise ConfigError(
            f"workload.hash_block_size={spec.workload.hash_block_size}: the prompts of a bench are drawn and share "
            "nothing, whatever the trace's hash_ids say; leave it out"
        )
    prompt_seed = secrets.randbits(32) if spec.prompt_seed is None else spec.prompt_seed
    clock = Clock()
    async with open_session(clock, headers or {}, spec.timeout_s) as session:
        wire = Wire(session, spec.url, clock)
        listing = await list_models(session, spec, wait_s)
        workload = build_workload(spec.workload, spec.seed, spec.max_model_len or listing.max_model_len)
        server = await prepare(wire, spec, listing, prompt_seed)
        run = _Run(spec, wire, listing, server, workload, _records(workload, server))
        few = slice(spec.warm_up_requests)
        lengths = zip(workload.prompt_tokens[few].tolist(), workload.output_tokens[few].tolist(), strict=True)
        await warm_up(wire, spec, server, [(prompt, min(output, WARM_UP_OUTPUT)) for prompt, output in lengths])
        lags: array[int] = array("q")
        interrupted = await _drive(run, lags, progress)
    return measured_result(
        spec, Measured(workload, server, listing, run.records, lags, prompt_seed, interrupted, clock.now())
    )


def _records(workload: Workload, server: Server) -> list[Record]:
    columns = (workload.arrival_ns, workload.prompt_tokens, workload.output_tokens)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Record(i, server.prompts.asked(prompt), output, at) for i, (at, prompt, output) in enumerate(rows)]


async def _drive(run: _Run, lags: array[int], progress: Progress | None) -> bool:
    """Send everything and wait for all ends; true if it was interrupted."""
    spec, clock, lengths = run.spec, run.wire.clock, run.workload.prompt_tokens

    def make(record: Record) -> bytes:
        prompt = run.server.prompts.make(record.id, int(lengths[record.id]))
        return body(spec, run.server.features, prompt, record.output_asked)

    bodies = load.Bodies(run.records, make, clock)
    bodies.fill()
    send = _counting(run.wire.exchange, len(run.records), progress)
    gc.collect()
    gc.freeze()  # the bodies and the trace are no garbage: walking them would delay a token's time
    clock.start()
    watch = asyncio.create_task(load.watch_lag(lags, clock))
    try:
        if run.workload.max_concurrency is None:
            await load.open_loop(run.records, bodies, send, clock)
        else:
            await load.closed_loop(run.records, bodies, send, run.workload.max_concurrency)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        return True
    finally:
        gc.unfreeze()
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    return False


def _counting(exchange: load.Send, total: int, progress: Progress | None) -> Callable[[bytes, Record], Awaitable[None]]:
    """The exchange with `progress` called now and then."""
    done = 0

    async def send(body: bytes, record: Record) -> None:
        nonlocal done
        await exchange(body, record)
        done += 1
        if progress is not None and done * 100 // total > (done - 1) * 100 // total:
            progress(done, total)

    return send
