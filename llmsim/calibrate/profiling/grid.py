"""The cases of the default plan: prefill chunks x past, decodes x context, both mixed, and the corners of the limits.

A fit can tell two sums apart only if the cases do: prompts come in several to a batch and with unequal pasts, decodes
with unequal contexts, and every size is drawn by itself. Each stratum (prefill, decode, mixed, corner) is in the
case's name. Whatever is drawn is cut to the limits at the end (`Limits.cut`), so no case exceeds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmsim.calibrate.profiling.cases import Case, Sequence
from llmsim.calibrate.profiling.sampling import log_between, spread_points, uneven
from llmsim.errors import ConfigError

BLOCK = 16
"""Tokens a KV block; a plan for smaller blocks fits too, as it fills no more of them."""

SHARES = {"prefill": 0.30, "decode": 0.35, "mixed": 0.35}
MOST_PROMPTS = 64
"""Prompts of a batch at most: engines admit few at a time, and a token budget is soon spent."""
TYPICAL = 16
"""Shortest typical past or context that is drawn (the corners have shorter ones): where nothing changes any more."""
GROUPS = 8
"""Different contexts among the decodes of a case at most: enough for unequal lengths, and its text stays short."""

Row = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What no case may exceed: positions of a sequence, tokens of KV, query tokens and sequences of a batch."""

    max_model_len: int
    kv_tokens: int
    max_tokens: int
    max_seqs: int

    def __post_init__(self) -> None:
        """Reject limits that no decode fits."""
        for name, least in (("max_model_len", 2), ("kv_tokens", BLOCK), ("max_tokens", 1), ("max_seqs", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} of a plan must be a whole number of at least {least} but got {value!r}")

    @property
    def blocks(self) -> int:
        """KV blocks."""
        return self.kv_tokens // BLOCK

    def problem(self, case: Case) -> str:
        """Which limit the case exceeds, in words; empty if none."""
        found = (
            ("keys in a sequence", case.max_keys, self.max_model_len),
            ("tokens of KV in whole blocks", case.blocks(BLOCK) * BLOCK, self.kv_tokens),
            ("query tokens", case.tokens, self.max_tokens),
            ("sequences", len(case.sequences), self.max_seqs),
        )
        over = [f"{value:,} {what} of {limit:,}" for what, value, limit in found if value > limit]
        return ", ".join(over)

    def cut(self, sequences: list[Sequence]) -> tuple[Sequence, ...]:
        """The sequences, shortened and left out from the end until they fit; never none."""
        kept: list[Sequence] = []
        blocks, tokens = self.blocks, self.max_tokens
        for sequence in sequences[: self.max_seqs]:
            keys = min(sequence.keys, self.max_model_len, blocks * BLOCK)
            queries = min(sequence.queries, keys, tokens)
            if not queries:
                break
            # A prompt that is cut short keeps its past, so that queries give way before it does.
            keys = min(keys, sequence.past + queries)
            kept.append(Sequence(queries, keys, sequence.chunked and keys > queries))
            blocks -= -(-keys // BLOCK)
            tokens -= queries
        return tuple(kept)


def grid_cases(limits: Limits, count: int, seed: int) -> list[Case]:
    """`count` different cases (fewer where the limits allow no more), corners first, then stratum by stratum."""
    found = {case.sequences: case for case in _corners(limits)}
    makers: dict[str, Callable[[Limits, Row, np.random.Generator], list[Sequence]]] = {
        "prefill": _prefill,
        "decode": _decode,
        "mixed": _mixed,
    }
    streams = np.random.SeedSequence(seed).spawn(len(makers))
    left = max(count - len(found), 0)
    for (stratum, make), stream in zip(makers.items(), streams, strict=True):
        rng = np.random.default_rng(stream)
        # The last stratum takes what rounding left over.
        wanted = round(left * SHARES[stratum]) if stratum != "mixed" else max(count - len(found), 0)
        made = 0
        for point in spread_points(20 * wanted, 4, rng):
            sequences = limits.cut(make(limits, point, rng))
            if made < wanted and sequences not in found:
                found[sequences] = Case(f"{stratum}-{made:03d}", sequences)
                made += 1
    return list(found.values())


def _corners(limits: Limits) -> Iterator[Case]:
    """The extremes of every sum, each with little and with much of the others."""
    longest = min(limits.max_model_len, limits.blocks * BLOCK)
    chunk = min(limits.max_tokens, longest)
    half = max(min(limits.max_tokens, longest // 2), 1)
    many = min(limits.max_seqs, limits.max_tokens, limits.blocks)
    prompts = min(many, MOST_PROMPTS)
    full = max(min(limits.blocks // many * BLOCK, longest), 2)
    rest = max(limits.max_tokens - many + 1, 1)
    corners = {
        "one-short-decode": [Sequence(1, 2)],
        "one-long-decode": [Sequence(1, longest)],
        "many-short-decodes": [Sequence(1, 2)] * many,
        "many-long-decodes": [Sequence(1, full)] * many,
        "one-token-prompt": [Sequence(1, 1)],
        "one-token-deep": [Sequence(1, longest, chunked=True)],
        "full-chunk": [Sequence(chunk, chunk)],
        "full-chunk-deep": [Sequence(half, longest, chunked=True)],
        "many-tiny-prompts": [Sequence(1, 1)] * prompts,
        "many-prompts": [Sequence(limits.max_tokens // prompts, limits.max_tokens // prompts)] * prompts,
        "decode-and-full-chunk": [Sequence(1, 2), Sequence(max(chunk - 1, 1), max(chunk - 1, 1))],
        "many-decodes-and-token": [*[Sequence(1, full)] * (many - 1), Sequence(1, 1)],
        "many-decodes-and-chunk": [*[Sequence(1, max(full // 2, 2))] * (many - 1), Sequence(rest, rest)],
    }
    names: dict[tuple[Sequence, ...], str] = {}
    for name, sequences in corners.items():
        names.setdefault(limits.cut(sequences), name)
    return (Case(f"corner-{name}", sequences) for sequences, name in names.items())


def _prefill(limits: Limits, at: Row, rng: np.random.Generator) -> list[Sequence]:
    """Prompt chunks: several to a batch in more than half the cases, a third of them without a past."""
    most = min(limits.max_seqs, limits.max_tokens, limits.blocks, MOST_PROMPTS)
    # Stretched, so that a batch of one is drawn in a good third of the cases.
    prompts = log_between(1, most, max(1.5 * float(at[0]) - 0.5, 0.0))
    return _chunks(limits, limits.max_tokens, limits.blocks, prompts, at[1:], rng)


def _decode(limits: Limits, at: Row, rng: np.random.Generator) -> list[Sequence]:
    """Decodes, in half of the cases with equal contexts."""
    decodes = log_between(1, min(limits.max_seqs, limits.max_tokens, limits.blocks), float(at[0]))
    return _contexts(limits, limits.blocks, decodes, float(at[1]), bool(at[2] < 0.5), rng)


def _mixed(limits: Limits, at: Row, rng: np.random.Generator) -> list[Sequence]:
    """Decodes with unequal contexts, then one prompt chunk or a few."""
    most = min(limits.max_seqs, limits.max_tokens, limits.blocks) - 1
    decodes = log_between(1, max(most, 1), float(at[0]))
    first = _contexts(limits, max(limits.blocks - 1, 1), decodes, float(at[1]), False, rng)
    left = limits.blocks - sum(-(-sequence.keys // BLOCK) for sequence in first)
    prompts = int(rng.choice([1, 1, 1, 2, 4]))
    chunks = _chunks(limits, limits.max_tokens - decodes, left, prompts, np.append(at[2:], rng.random()), rng)
    return first + chunks


def _chunks(
    limits: Limits, tokens: int, blocks: int, prompts: int, at: Row, rng: np.random.Generator
) -> list[Sequence]:
    """Up to `prompts` chunks of unequal size and past; `at` places the sum of their tokens and their mean past."""
    prompts = min(prompts, tokens, blocks)
    if prompts < 1:
        return []
    total = log_between(prompts, min(tokens, blocks * BLOCK, prompts * limits.max_model_len), float(at[0]))
    room = (blocks * BLOCK - total) // prompts - BLOCK
    deep = float(at[1]) >= 1 / 3
    mean = _log_typical(min(limits.max_model_len, room), 1.5 * float(at[1]) - 0.5) if deep and room > 0 else 0
    sequences = []
    for queries in uneven(total, prompts, rng):
        queries = min(queries, limits.max_model_len)
        past = round(mean * 2 ** rng.uniform(-1, 1)) if prompts > 1 else mean
        past = min(past, limits.max_model_len - queries)
        sequences.append(Sequence(queries, queries + past, chunked=past > 0))
    return sequences


def _contexts(
    limits: Limits, blocks: int, decodes: int, at: float, equal: bool, rng: np.random.Generator
) -> list[Sequence]:
    """`decodes` decodes whose typical context lies the share `at` of the way to the longest that fits."""
    typical = max(_log_typical(min(limits.max_model_len, blocks // decodes * BLOCK), at), 2)
    if equal or decodes == 1:
        return [Sequence(1, typical)] * decodes
    sequences = []
    for size in uneven(decodes, min(decodes, GROUPS), rng):
        context = min(max(round(typical * 4 ** rng.uniform(-1, 1)), 2), limits.max_model_len)
        sequences += [Sequence(1, context)] * size
    return sequences


def _log_typical(high: int, at: float) -> int:
    """The length between TYPICAL and `high` (at most `high`) at the share `at` of a logarithmic scale."""
    return log_between(min(TYPICAL, high), high, at)
