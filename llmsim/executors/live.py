"""LiveExecutor: batches of the scheduler on a real model, and how long they really took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import CapacityError, SchedulerError
from llmsim.executors.base import Executor
from llmsim.executors.step import Row

if TYPE_CHECKING:
    from llmsim.core.batch import Batch
    from llmsim.core.kvcache import PagedKVCache
    from llmsim.core.request import Request
    from llmsim.executors.runner import ModelRunner

SCRATCH_PAGES = 512
"""Pages behind the KV cache that padding reads and writes: more than a processor's cache holds."""

IdleClock = Literal["skip", "wall"]
SPIN_NS = 2_000_000
"""The last of a wait is spun away: sleeping is precise to a millisecond or so."""


class Timing(NamedTuple):
    """One iteration: start and end on the clock of the run, ns of its forward pass and of the whole step."""

    start_ns: int
    end_ns: int
    forward_ns: int
    step_ns: int


class LiveExecutor(Executor):
    """Runs each batch on `runner`; the end of an iteration is read from the machine's clock.

    While the replica is busy, its clock is real time: an iteration lasts from the end of the one before to its own
    end, so that scheduling and bookkeeping are inside. Idle time is skipped (`clock="skip"`) or slept through
    ("wall"). Prompts are random tokens made from `seed` and the request's id; outputs are what the model samples.
    `runner` must hold SCRATCH_PAGES more pages than `kv` has blocks if the policy pads its batches. `aside` is called
    with the clock of the run before every iteration, while that clock stands still.
    """

    def __init__(
        self,
        runner: ModelRunner,
        kv: PagedKVCache,
        *,
        seed: int = 0,
        clock: IdleClock = "skip",
        aside: Callable[[int], None] | None = None,
    ) -> None:
        self.runner = runner
        self.kv = kv
        self.clock = clock
        self.aside = aside if clock == "skip" else None  # the wall clock does not stand still
        self.timings: list[Timing] = []
        self.tokens: dict[int, NDArray[np.int64]] = {}
        """Request id -> its prompt and the tokens sampled so far, with room behind them."""
        self._seed = seed
        self._scratch = np.arange(kv.num_blocks, runner.num_pages, dtype=np.int32)
        self._anchor_ns = 0
        self._anchor = time.perf_counter_ns()
        self._awake_ns = -1
        """Clock of the run up to which real time has been followed: the end of the last iteration, or the waking."""

    def wake(self, now: int) -> None:
        """Follow real time from `now` on; under the wall clock, once it is `now`."""
        if self.clock == "wall":
            wait_until(self._anchor + now - self._anchor_ns)
        else:
            self._anchor_ns, self._anchor = now, time.perf_counter_ns()
        self._awake_ns = now

    def execute(self, batch: Batch, start_ns: int, iterations: int) -> Sequence[int]:
        """As in Executor: runs the batch once, whatever `iterations`.

        Raises SchedulerError for a batch whose KV is not there, or that pads to no rectangle, and CapacityError for a
        sequence longer than the model has positions for.
        """
        if start_ns != self._awake_ns:
            self.wake(start_ns)
        if self.aside is not None:
            stopped = time.perf_counter_ns()
            self.aside(start_ns)
            self._anchor += time.perf_counter_ns() - stopped
        began = time.perf_counter_ns()
        rows, requests = self._rows(batch)
        result = self.runner.step(rows)
        for request, row, token in zip(requests, rows, result.tokens, strict=False):  # padding has no request
            self._keep(request, row, token)
        now = time.perf_counter_ns()
        end = max(self._anchor_ns + now - self._anchor, start_ns + 1)
        self.timings.append(Timing(start_ns, end, result.forward_ns, now - began))
        self._awake_ns = end
        return (end,)

    def _rows(self, batch: Batch) -> tuple[list[Row], list[Request]]:
        """Decodes, prompts, then rows that are padding alone; and the requests of the first two."""
        decodes: list[tuple[Request, int]] = [(request, request.length) for request in batch.decode_list]
        if batch.decodes is not None:
            held = batch.decodes
            decodes += [(request, held.length(request)) for request in held.members]
        rows = [self._decode(request, length) for request, length in decodes]
        padding: list[Row] = []
        if batch.decode_tokens and (
            batch.decode_tokens > len(rows) or batch.decode_context > sum(length for _, length in decodes)
        ):
            rows, padding = self._pad_decodes(rows, batch.decode_tokens, batch.decode_context)
        prompts = [
            self._prompt(request, chunk) for request, chunk in zip(batch.prefills, batch.chunks, strict=True)
        ]
        if batch.prefill_tokens > sum(batch.chunks):
            prompts = self._pad_prompts(prompts, batch.prefill_tokens)
        return rows + prompts + padding, [request for request, _ in decodes] + batch.prefills

    def _decode(self, request: Request, length: int) -> Row:
        """The last token of a sequence of `length` tokens; its KV is written with it.

        Where the end of a prompt emits no token (first_token_at_prefill_end false), that is the prompt's last again.
        """
        if length > self.runner.max_positions:
            raise CapacityError(
                f"request {request.id} has grown to {length} tokens, but {self.runner.config.name} is built for "
                f"{self.runner.max_positions} positions; cut long outputs (workload.on_long, lengths)"
            )
        pages = self.kv.pages(request, length - 1, 1)
        return Row(self._sequence(request)[length - 1 : length], length - 1, pages)

    def _prompt(self, request: Request, chunk: int) -> Row:
        start = request.computed
        pages = self.kv.pages(request, start, chunk)
        return Row(self._sequence(request)[start : start + chunk], start, pages)

    def _sequence(self, request: Request) -> NDArray[np.int64]:
        held = self.tokens.get(request.id)
        if held is None:
            draw = np.random.default_rng([self._seed, request.id])
            held = draw.integers(self.runner.config.vocabulary, size=request.prompt_tokens, dtype=np.int64)
            self.tokens[request.id] = held = np.concatenate([held, np.zeros(64, dtype=np.int64)])
        return held

    def _keep(self, request: Request, row: Row, token: int) -> None:
        """Store a sampled token behind the sequence; the end of a chunk that is not the last predicts nothing new."""
        at = row.start + len(row.tokens) - row.unread
        if at < request.prompt_tokens or (request.computed < request.prefill_tokens and at < request.prefill_tokens):
            return
        held = self.tokens[request.id]
        if at == len(held):
            self.tokens[request.id] = held = np.concatenate([held, np.zeros(len(held), dtype=np.int64)])
        held[at] = token

    def _pad_prompts(self, rows: list[Row], tokens: int) -> list[Row]:
        """Every prompt as long as the longest: queries that nobody reads behind the real ones."""
        longest = max(len(row.tokens) for row in rows)
        if longest * len(rows) != tokens:
            raise SchedulerError(f"{len(rows)} prompts of up to {longest} tokens are padded to {tokens}: no rectangle")
        padded = []
        for row in rows:
            unread = longest - len(row.tokens)
            queries = np.concatenate([row.tokens, np.zeros(unread, dtype=np.int64)])
            padded.append(Row(queries, row.start, self._stretch(row.pages, row.start + longest), 0, unread))
        return padded

    def _pad_decodes(self, rows: list[Row], sequences: int, context: int) -> tuple[list[Row], list[Row]]:
        """Every row as wide as the rectangle, and rows for sequences that are done."""
        width, rest = divmod(context, sequences)
        if rest or any(row.keys > width for row in rows):
            raise SchedulerError(f"{sequences} decodes are padded to {context} tokens of context: no rectangle")
        wide = [
            row._replace(pages=self._stretch(row.pages, width), hidden=width - row.keys) if row.keys < width else row
            for row in rows
        ]
        position = min(width, self.runner.config.max_model_len) - 1
        done = Row(np.zeros(1, dtype=np.int64), position, self._stretch(self._scratch[:0], width), width - 1 - position)
        return wide, [done] * (sequences - len(rows))

    def _stretch(self, pages: NDArray[np.int32], keys: int) -> NDArray[np.int32]:
        """The block table with scratch pages behind it, until it holds `keys` keys."""
        lacking = self.kv.blocks_for(keys) - len(pages)
        if lacking <= 0:
            return pages
        if not len(self._scratch):
            raise SchedulerError("this policy pads its batches, but the runner was built without scratch pages")
        return np.concatenate([pages, np.resize(self._scratch, lacking)])


def wait_until(at: int) -> None:
    """Return when time.perf_counter_ns() has reached `at`."""
    left = at - time.perf_counter_ns()
    if left > SPIN_NS:
        time.sleep((left - SPIN_NS) / 1e9)
    while time.perf_counter_ns() < at:
        pass
