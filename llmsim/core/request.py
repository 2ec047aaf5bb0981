"""One request: a prompt, its progress through a replica, and when things happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.core.content import Content

NEVER = -1
"""Value of a time that has not come (times are int ns, never negative)."""


@dataclass(frozen=True, slots=True)
class SloClass:
    """The service that a request asks for; every target may be absent.

    `tbt_s` time between tokens, `ttft_s` time to first token, `ttlt_s` time to last token (seconds);
    `tier` is Niyama's index (0 interactive, higher more tolerant), `priority` SLAI's paying user; `model` names the
    model that is to answer (None: any).
    """

    name: str = "default"
    tbt_s: float | None = None
    ttft_s: float | None = None
    ttlt_s: float | None = None
    tier: int | None = None
    priority: bool = False
    model: str | None = None


NO_SLO = SloClass()


class Request:
    """A prompt and its progress.

    Lengths are tokens, times int ns on the simulation clock (`NEVER` until they happen).
    `output_tokens` is the oracle: only the replica and what it owns may read it, never a scheduler or router
    (oracle.py). So are `_output_target` and `_slot_finish`, which only the core's own files read.
    """

    __slots__ = (
        "_output_target",
        "_slot_finish",
        "arrival_ns",
        "blocks",
        "cached_tokens",
        "chunks",
        "computed",
        "content",
        "finish_ns",
        "first_scheduled_ns",
        "generated",
        "id",
        "output_tokens",
        "preemptions",
        "prefill_end_ns",
        "prefill_tokens",
        "priority",
        "prompt_completions",
        "prompt_tokens",
        "rank",
        "rejected",
        "replica",
        "slo",
        "slot_anchor",
        "slot_start",
        "token_ranges",
    )

    def __init__(
        self,
        id: int,
        arrival_ns: int,
        prompt_tokens: int,
        output_tokens: int,
        slo: SloClass = NO_SLO,
        content: Content | None = None,
        priority: int = 0,
    ) -> None:
        if content is not None:
            content.check_length(prompt_tokens)
        self.id = id
        self.arrival_ns = arrival_ns
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.slo = slo
        self.content = content
        """What its tokens are; None: nobody else has the same."""
        self.priority = priority
        """Higher is more urgent, for policies that look at it."""
        self.prefill_tokens = prompt_tokens
        """Tokens whose KV must be computed before decoding: the prompt, plus outputs lost with a preemption."""
        self.computed = 0
        """Prefill tokens computed so far in this life."""
        self.generated = 0
        """Output tokens emitted so far (exact only outside a DecodeSet, which advances its members lazily)."""
        self._output_target = output_tokens
        """`generated` at which the request finishes (the oracle again)."""
        self.cached_tokens = NEVER
        """Tokens that it found in the prefix cache when it was first admitted; `NEVER` before that."""
        self.blocks = 0
        """KV blocks held (exact only outside a DecodeSet)."""
        self.preemptions = 0
        self.chunks = 0
        self.prompt_completions = 0
        self.first_scheduled_ns = NEVER
        self.prefill_end_ns = NEVER
        self.finish_ns = NEVER
        self.rejected = ""
        """Why a scheduler refused the request; empty if it did not."""
        self.replica = -1
        """Index of the replica it was sent to; -1 before that."""
        self.rank = 0
        """Place in its scheduler's own order, for the scheduler to use as it likes."""
        self.token_ranges: list[int] = []
        """Flat pairs (first, last): one token at each of these steps of the replica's DecodeSet; an index below
        zero means iteration -(index + 1) of the replica instead."""
        # Written by the DecodeSet that holds the request.
        self.slot_anchor = 0
        self._slot_finish = 0
        self.slot_start = 0

    @property
    def length(self) -> int:
        """Tokens of the sequence so far: prompt and outputs."""
        return self.prompt_tokens + self.generated

    @property
    def remaining_prefill(self) -> int:
        """Prefill tokens still to compute."""
        return self.prefill_tokens - self.computed

    def __repr__(self) -> str:
        return (
            f"Request(id={self.id}, prompt_tokens={self.prompt_tokens}, "
            f"computed={self.computed}, generated={self.generated})"
        )
