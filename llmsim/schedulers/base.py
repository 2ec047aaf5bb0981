"""What every policy is: a pure decision about the next batch of one replica.

A scheduler sees its own queues, the KV cache and `now`; it knows no clock, SimPy, executor or torch, and never
reads how long an output will be. Two rungs: write `schedule` from scratch on `Scheduler`, or override one hook
of `ContinuousBatching` (continuous.py).
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import insort
from collections import deque
from math import inf, isfinite
from typing import TYPE_CHECKING

from llmsim.core.contract.policy import Policy
from llmsim.core.decodes import DecodeSet
from llmsim.core.request import NEVER, Request
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmsim.core.batch import Batch
    from llmsim.core.kvcache import Hit, KVCache

UNBOUNDED = 1 << 60
"""`steady_iterations` of a batch that nothing but an arrival or a finish can change."""


def by_arrival(request: Request) -> tuple[int, int]:
    """First come, first served; equal arrivals in trace order."""
    return request.arrival_ns, request.id


def finite(above: float = 0.0, most: float = inf, **options: float) -> None:
    """Raise ConfigError for the first option that is no finite number from `above` (included) to `most`."""
    for name, value in options.items():
        if not (isfinite(value) and above <= value <= most):
            limit = "" if most == inf else f" and at most {most:g}"
            raise ConfigError(f"{name} must be a finite number of at least {above:g}{limit} but got {value}")


def at_least(minimum: int, **options: int) -> None:
    """Raise ConfigError for the first option below `minimum`."""
    for name, value in options.items():
        if value < minimum:
            raise ConfigError(f"{name} must be at least {minimum} but got {value}")


class Scheduler(Policy):
    """Chooses what the next iteration runs.

    Parameters of a policy are dataclass fields; state is made in `bind`. The queues a policy starts with:
    `waiting` (arrived, hold no KV), `prefilling` (prompt under way, sorted by arrival) and `decodes`.
    """

    TO_CALL = ("add_all_decodes", "growth_bound", "reject_too_long", "start_prefill")

    waiting: deque[Request]
    prefilling: list[Request]
    decodes: DecodeSet
    kv: KVCache
    max_model_len: int
    paged: bool = True
    """False for policies that reserve a request's whole KV at admission and never grow it."""
    departing: list[Request]
    """Requests that are done and whose places and KV blocks are still taken (`AsyncReplica`)."""
    answers_together: bool = False
    """True for policies without streaming: whoever is done is answered when nobody is left in the batch."""
    finds_prefixes: bool = False
    """True for policies that admit a request with what a prefix cache holds of it (`engine.enable_prefix_caching`)."""
    unhashed_first: bool = False
    """True for policies whose prefix cache reuses free blocks that hold nothing before all others."""
    ends_at_limit: bool = True
    """Whether the policy's engine ends an answer when its sequence has max_model_len tokens, as vLLM does; one that
    does not refuses a request that asks for more."""
    runs_ahead: bool = False
    """True for policies whose engine forms a batch while the one before it runs (`engine.async_scheduling`)."""

    def bind(self, kv: KVCache, max_model_len: int) -> None:
        """Start a run on this cache. `max_model_len` is the longest sequence, prompt and outputs, in tokens."""
        self.kv = kv
        self.max_model_len = max_model_len
        self.waiting = deque()
        self.prefilling = []
        self.departing = []
        self.decodes = DecodeSet(kv.block_size, paged=self.paged)
        kv.attach(self.decodes, unhashed_first=self.unhashed_first)

    def add(self, request: Request) -> None:
        """A request has arrived."""
        self.waiting.append(request)

    @abstractmethod
    def schedule(self, now: int) -> Batch:
        """The next batch, formed at `now` (int ns); empty if there is nothing that can run."""

    def steady_iterations(self, batch: Batch) -> int:
        """How many times this batch may run before `schedule` could answer differently, if nothing arrives and
        nobody finishes. 1, the default, is always right; more makes macro-steps.

        A batch repeats with all its decodes, each one token longer; it may hold one prefill chunk, which then
        moves on by its own length and may complete the prompt in the last repetition only.
        """
        return 1

    def heeds_arrivals(self, batch: Batch) -> bool:
        """Whether a request that arrives while this batch repeats could change the next repetition.

        True, the default, is always right; False spares cutting the run for an arrival that can only queue.
        """
        return True

    def prompt_done(self, request: Request) -> None:
        """The request's prompt is computed."""
        self.prefilling.remove(request)

    def start_decoding(self, request: Request) -> None:
        """After `prompt_done`, if tokens are to come: the request decodes from the next batch on."""
        self.decodes.join(request)

    def finished(self, request: Request) -> None:
        """The request has emitted its last token and left its queue."""
        self.kv.release(request)

    @property
    def resident(self) -> int:
        """Requests that hold KV."""
        return len(self.prefilling) + self.decodes.size + len(self.departing)

    @property
    def queued(self) -> int:
        """Requests that have arrived and hold no KV."""
        return len(self.waiting)

    def wake_at(self, now: int) -> int | None:
        """After an empty batch: when to be asked again (int ns, later than `now`) even if nothing arrives.

        None, the default: only an arrival can change the answer.
        """
        return None

    @property
    def reserve_blocks(self) -> int:
        """KV blocks that must stay free when a request is admitted."""
        return self.kv.watermark_blocks

    @property
    def longest_sequence(self) -> int:
        """Tokens of prompt and output that this policy can certainly serve on its cache, alone if need be.

        Growth by decoding asks for a free block whether it needs one or not (the originals' rule), and a preempted
        request must be admitted again.
        """
        return (self.kv.num_blocks - self.reserve_blocks - 1) * self.kv.block_size

    def reject_too_long(self, batch: Batch) -> bool:
        """Drop the head of `waiting` if preemptions made it longer than the model takes (the replica refuses
        arrivals that are too long itself)."""
        request = self.waiting[0]
        if request.prefill_tokens <= self.max_model_len:
            return False
        self.waiting.popleft()
        request.rejected = (
            f"{request.prefill_tokens} tokens to prefill are more than max_model_len={self.max_model_len}"
        )
        batch.rejected = [*batch.rejected, request]
        return True

    def adopt(self, request: Request, hit: Hit, batch: Batch) -> None:
        """Admit a request with what it has found in the cache (`kv.match`); it computes the rest."""
        self.kv.adopt(request, hit)
        request.computed = found = hit.blocks * self.kv.block_size
        batch.cached_tokens += found
        if request.cached_tokens == NEVER:
            request.cached_tokens = found

    def start_prefill(self, request: Request) -> None:
        """Put an admitted request among `prefilling`, in order of arrival."""
        prefilling = self.prefilling
        if prefilling and request.arrival_ns <= prefilling[-1].arrival_ns:
            insort(prefilling, request, key=by_arrival)
        else:  # nearly always: it is the last to have arrived
            prefilling.append(request)

    def preempt(self, request: Request, batch: Batch) -> None:
        """Take the request's KV away and put it first in line; its prompt and outputs will be recomputed.

        One that is `departing` gives its blocks back and is gone: its last token comes whatever happens to them.
        """
        if request.finish_ns != NEVER:
            self.departing.remove(request)
            self.finished(request)
            request.preemptions += 1
            batch.preempted = [*batch.preempted, request]
            return
        self.withdraw(request)
        self.kv.release(request)
        left = request.prefill_tokens - request.computed
        request.prefill_tokens = request.prompt_tokens + request.generated
        batch.lost_tokens += request.prefill_tokens - left
        request.computed = 0
        request.preemptions += 1
        self.waiting.appendleft(request)
        batch.preempted = [*batch.preempted, request]

    def withdraw(self, request: Request) -> None:
        """Take a resident request out of its queue, to be preempted."""
        if request.computed < request.prefill_tokens:
            self.prefilling.remove(request)
        else:
            self.decodes.leave(request)

    def executed(self, batch: Batch, start_ns: int, ends_ns: Sequence[int]) -> None:  # a hook
        """Hook: the batch ran, once for each of `ends_ns`; called before its tokens are credited."""

    def add_all_decodes(self, batch: Batch) -> None:
        """One token for every decode, preempting the youngest arrivals where KV runs out (Sarathi, vLLM v0).

        The originals ask for one free block before every decode, needed or not: enough are free for all only
        if more are free than are needed.
        """
        decodes, kv = self.decodes, self.kv
        left = kv.free_blocks - decodes.blocks_needed()
        if left > 0:
            kv.free_blocks = left
        else:
            self._grow_one_by_one(batch)
        if decodes.size:
            batch.add_decodes(decodes)

    def _grow_one_by_one(self, batch: Batch) -> None:
        kv, decodes = self.kv, self.decodes
        order = sorted([*decodes.members, *self.prefilling], key=by_arrival)
        at = 0
        while at < len(order):
            request = order[at]
            at += 1
            if request.computed < request.prefill_tokens:
                continue
            while not kv.free_blocks:
                self.preempt(order.pop() if len(order) > at else request, batch)
                if request.computed < request.prefill_tokens:  # it was the victim itself
                    return
            if decodes.needs_block(request):
                kv.take(1)

    def growth_bound(self, reserve: int) -> int:
        """Iterations for which the decodes certainly find their blocks with `reserve` left over, this one in.

        A lower bound: any block_size iterations in a row take one block a decode.
        """
        decodes, kv = self.decodes, self.kv
        if not decodes.paged or not decodes.size:
            return UNBOUNDED
        rounds = (kv.free_blocks - reserve) // decodes.size
        return 1 + rounds * kv.block_size if rounds > 0 else 1
