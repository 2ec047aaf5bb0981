"""Niyama: deadlines by tier decide whose prompt goes next, and how large its chunk may be.

As microsoft/sarathi-serve, branch niyama_asplos2026, at 72339db, deadline_scheduler.py (arXiv 2503.22562).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from llmsim.core.batch import Batch, Work
from llmsim.errors import ConfigError
from llmsim.schedulers.base import Scheduler, at_least, by_arrival, finite
from llmsim.schedulers.niyama_predictor import published_predictor
from llmsim.units import SECOND

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request

MODES = ("fcfs", "edf", "srpf", "deadline", "deadline_no_dynamic_chunking")
CHUNKS = (128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2552)
"""Tokens of a batch that dynamic chunking chooses from, and those of a cache that is nearly full."""
CHUNKS_LOW_MEMORY = (128, 256, 384, 512)
SAFETY = 1.2
EMA_DECAY = 0.995
EMA_START_TOKENS_PER_S = 8500.0


@dataclass(slots=True)
class Entry:
    """A request in the prefill queue; compared by its present key, as the original compares."""

    request: Request
    key: Callable[[Entry], tuple[float, ...]]
    ttft_deadline_s: float
    relegated: int = 0

    def __lt__(self, other: Entry) -> bool:
        return self.key(self) < other.key(other)


@dataclass
class Niyama(Scheduler):
    """Decodes first, then prompts by `mode`, in one batch of up to `chunk_size` tokens, or as many as slack allows.

    A request's tier indexes `tier_deadlines_s`: tier 0 is a deadline of the first token, higher tiers of the last, from
    which `output_len_pred` decodes of `execution_threshold_batched` seconds are taken. Modes: "fcfs", "edf" (deadline),
    "srpf" (shortest remaining prompt), "deadline" (deadline + `hybrid_prioritization_param` seconds a remaining token;
    eager relegation; dynamic chunking) and "deadline_no_dynamic_chunking". `predictor` prices a Work in seconds; in a
    run's YAML it is a calibration's name (or file), or "published".

    Three faults of the original are mended unless their switch is on. `largest_slack_first`: where decodes exceed
    `chunk_size`, the most urgent are left out, not the least. `stale_heap`: an entry whose remaining prompt shrinks
    keeps its old place in the heap. `unchecked_memory`: memory is taken without asking, and a run whose cache is full
    dies (SchedulerError). Mended, a prompt waits for room under the watermark, and where a decode lacks a block the
    youngest decode is preempted.
    """

    chunk_size: int = 512
    mode: str = "deadline"
    execution_threshold: float = 0.1
    execution_threshold_batched: float = 0.4
    output_len_pred: int = 15
    hybrid_prioritization_param: float = 0.008
    tier_deadlines_s: tuple[float, ...] = (6.0, 600.0, 1800.0)
    predictor: Callable[[Work], float] | str = field(default="published", repr=False)
    largest_slack_first: bool = False
    stale_heap: bool = False
    unchecked_memory: bool = False

    ends_at_limit = False

    def __post_init__(self) -> None:
        at_least(1, chunk_size=self.chunk_size)
        if self.mode not in MODES:
            raise ConfigError(f"mode must be one of {', '.join(MODES)} but got {self.mode!r}")
        if not isinstance(self.tier_deadlines_s, list | tuple) or not self.tier_deadlines_s:
            raise ConfigError(f"tier_deadlines_s must be a list of seconds by tier but got {self.tier_deadlines_s!r}")
        self.tier_deadlines_s = tuple(self.tier_deadlines_s)
        finite(**{f"tier_deadlines_s[{i}]": seconds for i, seconds in enumerate(self.tier_deadlines_s)})
        for name in ("execution_threshold", "execution_threshold_batched", "hybrid_prioritization_param"):
            finite(**{name: getattr(self, name)})
        at_least(0, output_len_pred=self.output_len_pred)
        if isinstance(self.predictor, str):
            if self.predictor != "published":
                raise ConfigError(
                    f"predictor must be 'published' or a function of a Work but got {self.predictor!r}; names of "
                    "calibrations are looked up where a run is described (YAML, RunSpec), not by the policy"
                )
            self.predictor = published_predictor

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run."""
        super().bind(kv, max_model_len)
        self._heap: list[Entry] = []
        self._served: list[Entry] = []
        self._unstarted = 0  # entries of both whose request holds no KV yet
        self._running: list[Request] = []
        self._deadline_s: dict[int, float] = {}
        self._tokens_per_s = EMA_START_TOKENS_PER_S
        self._last_prefill = 0
        self._last_call_ns = 0
        self._key = {"fcfs": _by_arrival, "edf": _by_deadline, "srpf": _by_remaining}.get(self.mode, self._hybrid)

    @property
    def resident(self) -> int:
        """Requests that hold KV."""
        return len(self._running) + len(self.prefilling)

    @property
    def queued(self) -> int:
        """Requests that hold no KV: arrived, or in the heap without a chunk yet."""
        return len(self.waiting) + self._unstarted

    def schedule(self, now: int) -> Batch:
        """Decodes by slack; then prompts from the heap."""
        batch = Batch(now)
        for entry in self._served:  # their keys are settled now that their chunk has run
            heappush(self._heap, entry)
        self._served.clear()
        sign = -1 if self.largest_slack_first else 1
        self._running.sort(key=lambda r: (sign * self._slack_s(r, now), r.arrival_ns, r.id))
        self._take_arrivals(batch)
        slack = self._add_decodes(batch, now)
        limit = self.chunk_size - batch.decode_tokens
        if self.mode == "deadline":
            limit = self._dynamic_limit(batch, slack)
        if self._last_prefill > 0:
            seen = self._last_prefill / ((now - self._last_call_ns) / SECOND)
            self._tokens_per_s = EMA_DECAY * self._tokens_per_s + (1 - EMA_DECAY) * seen
        self._add_prefills(batch, limit, now)
        self._last_call_ns, self._last_prefill = now, batch.prefill_tokens
        return batch

    def _take_arrivals(self, batch: Batch) -> None:
        """Queue what has arrived, while it would fit by itself (nothing is reserved)."""
        while self.waiting and not self.reject_too_long(batch):
            if not self.kv.can_admit(self.waiting[0].prefill_tokens):
                return
            request = self.waiting.popleft()
            tier = request.slo.tier or 0
            deadline = self.tier_deadlines_s[min(tier, len(self.tier_deadlines_s) - 1)]
            if tier:
                deadline -= self.output_len_pred * self.execution_threshold_batched
            self._deadline_s[request.id] = deadline
            heappush(self._heap, Entry(request, self._key, deadline))
            self._unstarted += 1

    def _slack_s(self, request: Request, now: int) -> float:
        """Seconds until the next token is due. Unused slack of the first token is kept."""
        threshold = self.execution_threshold_batched if request.slo.tier else self.execution_threshold
        ttft_s = (request.prefill_end_ns - request.arrival_ns) / SECOND
        first = max(ttft_s, self._deadline_s[request.id])
        return (request.arrival_ns - now) / SECOND + first + threshold * (request.generated + 1)

    def _add_decodes(self, batch: Batch, now: int) -> float:
        """Decodes up to `chunk_size` tokens; the least slack among them, in seconds."""
        slack = inf
        for request in self._running[: self.chunk_size]:
            if not self.unchecked_memory and not self._make_room(request, batch):
                continue
            self.kv.allocate(request, request.length)
            batch.add_decode(request)
            slack = min(slack, self._slack_s(request, now))
        return slack

    def _make_room(self, request: Request, batch: Batch) -> bool:
        """Free a block for the decode by preempting the youngest that this batch does not hold; False if it must go."""
        while request in self._running and self.kv.blocks_for(request.length) - request.blocks > self.kv.free_blocks:
            taken = {r.id for r in batch.decode_list}
            self.preempt(max((r for r in self._running if r.id not in taken), key=by_arrival), batch)
        return request in self._running

    def withdraw(self, request: Request) -> None:
        """Victims are decodes."""
        self._running.remove(request)

    def _dynamic_limit(self, batch: Batch, slack: float) -> int:
        """Prompt tokens of the largest batch that the predictor finishes well within the slack."""
        low_memory = self.kv.free_blocks * self.kv.block_size // 32 < 1000
        candidates = CHUNKS_LOW_MEMORY if low_memory else CHUNKS
        context = self._heap[0].request.computed if self._heap else 0
        predict = self.predictor
        assert callable(predict)
        chosen, low, high = candidates[0], 0, len(candidates) - 1
        while low <= high and slack > 0:
            middle = (low + high) // 2
            prompt = candidates[middle] - batch.decode_tokens
            pairs = prompt * context + prompt * (prompt + 1) // 2
            work = Work(prompt, 1, context, pairs, batch.decode_tokens, batch.decode_context)
            if SAFETY * predict(work) <= slack:
                chosen, low = candidates[middle], middle + 1
            else:
                high = middle - 1
        return max(0, chosen - batch.decode_tokens)

    def _add_prefills(self, batch: Batch, limit: int, now: int) -> None:
        """Chunks by the heap's order; what would be late anyway is relegated behind everyone else."""
        heap, unfinished = self._heap, []
        while heap:
            entry = heappop(heap)
            request = entry.request
            if self._is_late(entry, now):
                entry.relegated = 1
                heappush(heap, entry)
                continue
            chunk = min(limit - batch.prefill_tokens, request.remaining_prefill)
            blocked = chunk > 0 and not self.unchecked_memory and not self._fits(request, batch)
            if blocked or chunk < request.remaining_prefill:
                unfinished.append(entry)
            if blocked or chunk <= 0:
                break
            if not request.blocks:
                self.kv.allocate(request, request.prefill_tokens)
                self.prefilling.append(request)
                self._unstarted -= 1
            batch.add_prefill(request, chunk)
        if not self.stale_heap:
            self._served = unfinished
            return
        for entry in unfinished:
            heappush(heap, entry)

    def _fits(self, request: Request, batch: Batch) -> bool:
        """Whether the prompt has its blocks or may take them; not in the batch that threw it out."""
        return bool(request.blocks) or (self.kv.can_admit(request.prefill_tokens) and request not in batch.preempted)

    def _is_late(self, entry: Entry, now: int) -> bool:
        request = entry.request
        if not self.mode.startswith("deadline") or entry.relegated or request.blocks:
            return False
        done_s = now / SECOND + request.remaining_prefill / self._tokens_per_s
        return done_s > request.arrival_ns / SECOND + entry.ttft_deadline_s

    def _hybrid(self, entry: Entry) -> tuple[float, ...]:
        work = self.hybrid_prioritization_param * entry.request.remaining_prefill
        return entry.relegated, entry.request.arrival_ns / SECOND + entry.ttft_deadline_s + work

    def start_decoding(self, request: Request) -> None:
        """It decodes from the next batch on."""
        self._running.append(request)

    def finished(self, request: Request) -> None:
        """Its blocks are free."""
        super().finished(request)
        del self._deadline_s[request.id]
        if request in self._running:
            self._running.remove(request)


def _by_arrival(entry: Entry) -> tuple[float, ...]:
    return (entry.request.arrival_ns,)


def _by_deadline(entry: Entry) -> tuple[float, ...]:
    return (entry.request.arrival_ns / SECOND + entry.ttft_deadline_s,)


def _by_remaining(entry: Entry) -> tuple[float, ...]:
    return (entry.request.remaining_prefill,)
