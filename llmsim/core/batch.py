"""What one iteration runs: prefill chunks and decodes, with the sums that price it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmsim.core.decodes import DecodeSet
    from llmsim.core.request import Request

NOBODY: tuple[Request, ...] = ()
"""The lists of a batch that are nearly always empty start as this."""


class Work:
    """The sums over a batch that a cost model prices (all ints, tokens unless said).

    prefill_tokens     prompt tokens computed
    prefill_seqs       prefill chunks, each of one sequence
    prefill_context    sum over chunks of the tokens already computed before the chunk
    prefill_attention  sum over chunks of query-key pairs, chunk * past + chunk * (chunk + 1) / 2
    decode_tokens      decodes, one token each
    decode_context     sum over decodes of the sequence's length (prompt and outputs) when the iteration starts
    decode_longest     the greatest of those lengths; 0 if it is not known
    """

    __slots__ = (
        "decode_context",
        "decode_longest",
        "decode_tokens",
        "prefill_attention",
        "prefill_context",
        "prefill_seqs",
        "prefill_tokens",
    )

    def __init__(
        self,
        prefill_tokens: int = 0,
        prefill_seqs: int = 0,
        prefill_context: int = 0,
        prefill_attention: int = 0,
        decode_tokens: int = 0,
        decode_context: int = 0,
        decode_longest: int = 0,
    ) -> None:
        self.prefill_tokens = prefill_tokens
        self.prefill_seqs = prefill_seqs
        self.prefill_context = prefill_context
        self.prefill_attention = prefill_attention
        self.decode_tokens = decode_tokens
        self.decode_context = decode_context
        self.decode_longest = decode_longest

    def repeated(self, times: int) -> Work:
        """This work `times` iterations later: every decode is longer by as many tokens, and its one prefill
        chunk, if it has one, has moved on by as many chunks."""
        chunk = self.prefill_tokens
        return Work(
            chunk,
            self.prefill_seqs,
            self.prefill_context + times * chunk,
            self.prefill_attention + times * chunk * chunk,
            self.decode_tokens,
            self.decode_context + times * self.decode_tokens,
            self.decode_longest and self.decode_longest + times,
        )

    @property
    def tokens(self) -> int:
        """Tokens the iteration runs through the linear layers."""
        return self.prefill_tokens + self.decode_tokens

    @property
    def sequences(self) -> int:
        """Sequences in the batch."""
        return self.prefill_seqs + self.decode_tokens

    def __repr__(self) -> str:
        return "Work(" + ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__) + ")"


class Batch(Work):
    """One iteration of one replica; also its own `Work`.

    Prefill chunks stand in the parallel lists `prefills` and `chunks`. Decodes are either every member of
    the `decodes` set, or the requests listed one by one in `decode_list`, or both. `preempted` and `rejected`
    hold the requests that lost their KV, or were dropped (`request.rejected` says why), while it was formed at
    `formed_ns`; `lost_tokens` are the computed tokens that the preempted must compute again, `cached_tokens` those
    that the admitted found in the prefix cache.
    """

    __slots__ = (
        "cached_tokens",
        "chunks",
        "decode_list",
        "decodes",
        "formed_ns",
        "lost_tokens",
        "preempted",
        "prefills",
        "rejected",
    )

    def __init__(self, formed_ns: int) -> None:  # once an iteration: sums set here, not by Work.__init__
        self.formed_ns = formed_ns
        self.prefill_tokens = 0
        self.prefill_seqs = 0
        self.prefill_context = 0
        self.prefill_attention = 0
        self.decode_tokens = 0
        self.decode_context = 0
        self.prefills: list[Request] = []
        self.chunks: list[int] = []
        self.decodes: DecodeSet | None = None
        self.decode_list: list[Request] | tuple[()] = ()
        self.preempted: Sequence[Request] = NOBODY
        self.rejected: Sequence[Request] = NOBODY
        self.lost_tokens = 0
        self.cached_tokens = 0

    def add_prefill(self, request: Request, tokens: int) -> None:
        """Compute the next `tokens` of the request's prompt."""
        past = request.computed
        self.prefills.append(request)
        self.chunks.append(tokens)
        self.prefill_tokens += tokens
        self.prefill_seqs += 1
        self.prefill_context += past
        self.prefill_attention += tokens * past + tokens * (tokens + 1) // 2

    def pad_prefills(self) -> None:
        """Price every prompt of the batch as long as its longest, as a rectangular batch without packing runs."""
        longest = max(self.chunks)
        padded = len(self.chunks) * longest
        self.prefill_attention += sum(longest * (longest + 1) // 2 - n * (n + 1) // 2 for n in self.chunks)
        self.prefill_tokens = padded

    def pad_decodes(self, sequences: int, context: int) -> None:
        """Price `sequences` sequences that are done, of `context` tokens in all, as decodes nobody reads."""
        self.decode_tokens += sequences
        self.decode_context += context

    def add_decode(self, request: Request) -> None:
        """One output token of a request that is in no DecodeSet."""
        if self.decode_list:
            self.decode_list.append(request)
        else:
            self.decode_list = [request]
        self.decode_tokens += 1
        self.decode_context += request.prompt_tokens + request.generated

    def add_decodes(self, decodes: DecodeSet) -> None:
        """One output token of every member of the set."""
        self.decodes = decodes
        self.decode_tokens += decodes.size
        self.decode_context += decodes.context

    @property
    def decode_longest(self) -> int:  # type: ignore[override]  # looked up when asked for: few models ask
        """Tokens of the longest sequence that decodes."""
        listed = max((r.prompt_tokens + r.generated for r in self.decode_list), default=0)
        return listed if self.decodes is None else max(listed, self.decodes.longest)

    def __len__(self) -> int:
        """Sequences in the batch."""
        return self.prefill_seqs + self.decode_tokens
