"""The fluid capacity bound: the rate that no scheduler exceeds under a batch-time model, whatever it batches.

A linear programme. Requests bring tokens, decodes, decode context and query-key pairs, however they are batched; the
device may run any mix of iterations that respects what every iteration respects: its price, the token budget, the
places, and the KV blocks that decodes hold. What a real run does is one point of that set, so the least time the
programme finds is a lower bound on the time a request costs, and its inverse an upper bound on the rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmsim.errors import CalibrationError, ConfigError

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration
    from llmsim.costs.forms import BatchTime

UNLIMITED = 1e9
"""Tokens of an iteration where nothing limits them."""


@dataclass(frozen=True, slots=True)
class FluidBound:
    """The bound and what of a request's least time goes where (seconds of one replica)."""

    rps: float
    replicas: int
    linear_s: float
    """Linear layers, constants and floors."""
    decode_context_s: float
    prefill_attention_s: float
    tokens_per_iteration: float

    @property
    def seconds(self) -> float:
        """Least seconds of a replica that a request costs."""
        return self.linear_s + self.decode_context_s + self.prefill_attention_s

    def describe(self) -> str:
        """One line for people."""
        parts = {
            "linear layers and constants": self.linear_s,
            "decode context": self.decode_context_s,
            "prefill attention": self.prefill_attention_s,
        }
        shares = ", ".join(f"{value / self.seconds:.0%} {name}" for name, value in parts.items() if value)
        return f"fluid bound {self.rps:.4g} requests/s: {1e3 * self.seconds:.4g} ms a request, {shares}"


class Demand(NamedTuple):
    """What a mean request brings, however it is batched."""

    prefill_tokens: float
    decode_tokens: float
    decode_context: float
    pairs: float
    prefill_context: float
    decode_blocks: float
    """KV blocks that its decodes hold, summed over them."""

    @classmethod
    def of(
        cls, prompt: ArrayLike, output: ArrayLike, *, block_size: int, budget: float, first_at_prefill_end: bool
    ) -> Demand:
        """Means over requests of these lengths (tokens); raises ConfigError for none, or lengths below 1."""
        p, d = np.asarray(prompt, dtype=np.float64), np.asarray(output, dtype=np.float64)
        if not len(p) or len(p) != len(d) or p.min() < 1 or d.min() < 1:
            raise ConfigError(
                f"lengths must be as many prompts as outputs, all at least 1 token, but got {len(p)} prompts and "
                f"{len(d)} outputs"
            )
        skipped = 1 if first_at_prefill_end else 0
        decodes = d - skipped  # the k-th runs at a length of p + k, k from `skipped` to d - 1
        context = decodes * p + (d * (d - 1) / 2)
        chunks = np.ceil(p / budget)
        short = p - (chunks - 1) * budget  # least past context: the short chunk first, then full ones
        past = (chunks - 1) * short + budget * (chunks - 1) * (chunks - 2) / 2
        values = (p, decodes, context, p * (p + 1) / 2, past, context / block_size)
        return cls(*(float(value.mean()) for value in values))


class Piece(NamedTuple):
    """Iterations of up to `most` tokens: price at least each of `lines`, plus the contexts.

    A line is (constant, per prefill token, per decode token), seconds.
    """

    least: float
    most: float
    lines: tuple[tuple[float, float, float], ...]
    per_decode_context: float
    per_pair: float
    per_prefill_context: float


def fluid_capacity(
    calibration: Calibration,
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    replicas: int = 1,
    token_budget: int | None = None,
    max_num_seqs: int | None = None,
    num_blocks: int | None = None,
    first_token_at_prefill_end: bool = True,
) -> FluidBound:
    """The bound for requests of these lengths, arrays of shape (requests,).

    `token_budget` tokens and `max_num_seqs` decodes an iteration at most (None: no limit); `num_blocks` KV blocks of
    the calibration's size (None: its own number). A limit that is left out makes the bound higher, never wrong.
    Raises ConfigError for lengths or limits below 1, CalibrationError if the programme has no solution.
    """
    limits = {"token_budget": token_budget, "max_num_seqs": max_num_seqs, "num_blocks": num_blocks}
    for name, value in {**limits, "replicas": replicas}.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1 but got {value}")
    budget = float(token_budget or UNLIMITED)
    demand = Demand.of(
        prompt_tokens,
        output_tokens,
        block_size=calibration.kv.block_size,
        budget=budget,
        first_at_prefill_end=first_token_at_prefill_end,
    )
    host = calibration.host_overhead.seconds
    pieces = [piece for piece in _pieces(calibration.batch_time, host, 0.0, UNLIMITED) if piece.least < budget]
    pieces = [piece._replace(most=min(piece.most, budget)) for piece in pieces]
    blocks = num_blocks or calibration.kv.num_blocks
    parts, iterations = _least_time(pieces, demand, float(max_num_seqs or UNLIMITED), demand.decode_blocks / blocks)
    tokens = demand.prefill_tokens + demand.decode_tokens
    return FluidBound(replicas / sum(parts), replicas, *parts, tokens_per_iteration=tokens / iterations)


def _pieces(form: BatchTime, host: float, least: float, most: float) -> Iterator[Piece]:
    """The model as pieces, from few tokens to many; `host` seconds are paid in every iteration."""
    if form.form == "stratified":
        low = least
        for stratum in form.strata:
            high = most if stratum.max_tokens is None else float(stratum.max_tokens)
            yield from _pieces(stratum.batch_time, host, low, high)
            low = high
        return
    value = form.value
    constant = value("constant") + host
    prefill = value("per_token") + value("per_prefill_token")
    decode = value("per_token") + value("per_decode_token") + value("per_sequence")  # a chunk's sequence is left out
    lines = [(constant, prefill, decode)]
    if form.form == "hinge":
        lines.append((value("floor") + host, 0.0, 0.0))
    if form.form == "tiled":
        # ceil(n / tile) is at least n / tile, and at least 1.
        share = value("per_tile") / (form.tile_tokens or 1)
        lines = [(constant, prefill + share, decode + share), (constant + value("per_tile"), prefill, decode)]
    contexts = (value("per_decode_context"), value("per_prefill_attention"), value("per_prefill_context"))
    yield Piece(least, most, tuple(lines), *contexts)


NAMES = ("iterations", "seconds", "prefill", "decode", "context", "pairs", "past")
"""Variables of the programme, for each piece: what its iterations take and what they serve."""


def _least_time(
    pieces: list[Piece], demand: Demand, places: float, least_iterations: float
) -> tuple[tuple[float, float, float], float]:
    """Seconds of a request (linear layers, decode context, prefill attention) and its share of iterations."""
    from scipy.optimize import linprog

    width = len(NAMES)
    cost, upper, bound = np.zeros(width * len(pieces)), [], []

    def row(**entries: float) -> NDArray[np.float64]:
        return np.array([entries.get(name, 0.0) for name in NAMES])

    def add(at: int, entries: NDArray[np.float64]) -> None:
        line = np.zeros_like(cost)
        line[at * width : (at + 1) * width] = entries
        upper.append(line)
        bound.append(0.0)

    for at, piece in enumerate(pieces):
        cost[at * width : (at + 1) * width] = row(
            seconds=1.0, context=piece.per_decode_context, pairs=piece.per_pair, past=piece.per_prefill_context
        )
        for constant, prefill, decode in piece.lines:
            add(at, row(iterations=constant, prefill=prefill, decode=decode, seconds=-1.0))
        add(at, row(prefill=1.0, decode=1.0, iterations=-piece.most))
        add(at, row(prefill=-1.0, decode=-1.0, iterations=piece.least))
        add(at, row(decode=1.0, iterations=-places))
    upper.append(np.tile(row(iterations=-1.0), len(pieces)))
    bound.append(-least_iterations)
    served = np.array([np.tile(row(**{name: 1.0}), len(pieces)) for name in NAMES[2:]])
    brought = [demand.prefill_tokens, demand.decode_tokens, demand.decode_context, demand.pairs, demand.prefill_context]
    found = linprog(cost, A_ub=np.array(upper), b_ub=bound, A_eq=served, b_eq=brought, method="highs")
    if not found.success:
        raise CalibrationError(f"the fluid bound of this calibration cannot be computed: {found.message}")
    each = found.x.reshape(len(pieces), width)
    linear = float(each[:, 1].sum())
    context = float(sum(piece.per_decode_context * row[4] for piece, row in zip(pieces, each, strict=True)))
    attention = sum(
        piece.per_pair * row[5] + piece.per_prefill_context * row[6] for piece, row in zip(pieces, each, strict=True)
    )
    return (linear, context, float(attention)), float(each[:, 0].sum())
