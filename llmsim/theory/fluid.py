"""The fluid capacity bound: the rate that no scheduler exceeds under a batch-time model, whatever it batches.

A linear program. Requests bring tokens, decodes, decode context and query-key pairs, however they are batched; the
device may run any mix of iterations that respects what every iteration respects: its price, the token budget, the
places, and the KV blocks that decodes hold. Replicas share the work as they like, even that of one request. What a real
run does is one point of that set, so the least time the program finds is a lower bound on the time a request costs,
and its inverse an upper bound on the rate.

The solver is exact to about a millionth. Where a decode coefficient is negative (a published fit), decodes that a run
repeats would lower its price; the program counts each decode once. Of a tabulated batch time it takes straight lines
below its tables (`fluid_tables`), so that bound is looser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from llmsim.costs.closed_form import to_femtoseconds
from llmsim.errors import ConfigError
from llmsim.theory.fluid_tables import floor_of
from llmsim.theory.linear_program import NAMES, LinearProgram
from llmsim.units import FS_PER_SECOND

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration
    from llmsim.costs.forms import BatchTime

UNLIMITED = 1e9
"""Tokens of an iteration where nothing limits them."""


@dataclass(frozen=True, slots=True)
class FluidBound:
    """The bound and what of a request's least time goes where (seconds of replicas, summed over kinds)."""

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

    @classmethod
    def of(cls, prompt: ArrayLike, output: ArrayLike, *, budget: float, first_at_prefill_end: bool) -> Demand:
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
        values = (p, decodes, context, p * (p + 1) / 2, past)
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

    @property
    def price(self) -> dict[str, float]:
        """What the replica's time is the sum of."""
        return {
            "seconds": 1.0,
            "context": self.per_decode_context,
            "pairs": self.per_pair,
            "past": self.per_prefill_context,
        }

    def rough_s(self, demand: Demand) -> float:
        """The order of magnitude of a request's seconds."""
        tokens = demand.prefill_tokens + demand.decode_tokens
        constant, prefill, decode = (max(abs(line[i]) for line in self.lines) for i in range(3))
        linear = constant * tokens / min(self.most, 1000.0) + prefill * demand.prefill_tokens
        return linear + decode * demand.decode_tokens + 1e-15


@dataclass(frozen=True, slots=True)
class Node:
    """`replicas` equal ones: batch times, and limits of an iteration (None: no limit; blocks: the calibration's)."""

    calibration: Calibration
    replicas: int = 1
    token_budget: int | None = None
    max_num_seqs: int | None = None
    num_blocks: int | None = None
    block_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("replicas", "token_budget", "max_num_seqs", "num_blocks", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1 but got {value}")

    @property
    def budget(self) -> float:
        """Tokens of an iteration."""
        return float(self.token_budget or UNLIMITED)

    @property
    def places(self) -> float:
        """Decodes of an iteration."""
        return float(self.max_num_seqs or UNLIMITED)

    @property
    def kv_tokens(self) -> float:
        """Lengths that the decodes of an iteration sum to at most."""
        kv = self.calibration.kv
        return float((self.num_blocks or kv.num_blocks) * (self.block_size or kv.block_size))

    def pieces(self) -> list[Piece]:
        """Its batch times, as far as its token budget goes."""
        calibration = self.calibration
        found = _pieces(calibration.batch_time, calibration.host_overhead.seconds, 0.0, UNLIMITED)
        return [piece._replace(most=min(piece.most, self.budget)) for piece in found if piece.least < self.budget]


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
    """The bound for requests of these lengths, arrays of shape (requests,), on equal replicas.

    `token_budget` tokens and `max_num_seqs` decodes an iteration at most (None: no limit); `num_blocks` KV blocks of
    the calibration's size (None: its own number). A limit that is left out makes the bound higher, never wrong.
    Raises ConfigError for lengths or limits below 1, CalibrationError if the program has no solution.
    """
    node = Node(calibration, replicas, token_budget, max_num_seqs, num_blocks)
    return fluid_capacity_of(
        [node], prompt_tokens, output_tokens, first_token_at_prefill_end=first_token_at_prefill_end
    )


def fluid_capacity_of(
    nodes: Sequence[Node],
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    first_token_at_prefill_end: bool = True,
) -> FluidBound:
    """The bound of replicas of several kinds, whatever the router sends where; the rest as in fluid_capacity.

    It can exceed the sum over kinds: a router may send each kind the requests that suit it.
    """
    demand = Demand.of(
        prompt_tokens,
        output_tokens,
        budget=max(node.budget for node in nodes),
        first_at_prefill_end=first_token_at_prefill_end,
    )
    seconds, parts, iterations = _least_time(nodes, demand)
    tokens = demand.prefill_tokens + demand.decode_tokens
    replicas = sum(node.replicas for node in nodes)
    return FluidBound(1 / seconds, replicas, *parts, tokens_per_iteration=tokens / iterations)


def _pieces(form: BatchTime, host: float, least: float, most: float) -> Iterator[Piece]:
    """The model as pieces, from few tokens to many; `host` seconds are paid in every iteration."""
    if form.form == "stratified":
        low = least
        for stratum in form.strata:
            high = most if stratum.max_tokens is None else float(stratum.max_tokens)
            yield from _pieces(stratum.batch_time, host, low, high)
            low = high
        return

    def value(name: str, more: float = 0.0) -> float:
        """As the simulator prices it: whole femtoseconds."""
        return to_femtoseconds(name, form.value(name) + more, negative=True) / FS_PER_SECOND

    constant = value("constant", host)
    if form.kernels is not None:
        gaps = min(value("graph_gaps"), value("launch_gaps")) if form.kernels.padding else value("launch_gaps")
        floor = floor_of(form.kernels, constant + gaps)
        lines = [(start, slope, slope) for start, slope in floor.lines]
        yield Piece(least, most, tuple(lines), floor.per_decode_context, floor.per_pair, 0.0)
        return
    prefill = value("per_token") + value("per_prefill_token")
    decode = value("per_token") + value("per_decode_token") + value("per_sequence")  # a chunk's sequence is left out
    lines = [(constant, prefill, decode)]
    if form.form == "hinge":
        lines.append((value("floor", host), 0.0, 0.0))
    if form.form == "tiled":
        # ceil(n / tile) is at least n / tile, and at least 1.
        share = value("per_tile") / (form.tile_tokens or 1)
        lines = [(constant, prefill + share, decode + share), (constant + value("per_tile"), prefill, decode)]
    contexts = (value("per_decode_context"), value("per_prefill_attention"), value("per_prefill_context"))
    yield Piece(least, most, tuple(lines), *contexts)


def _least_time(nodes: Sequence[Node], demand: Demand) -> tuple[float, tuple[float, float, float], float]:
    """Seconds of the cluster a request, seconds of replicas by part (as in FluidBound), and iterations."""
    pieces = [(node, piece) for node in nodes for piece in node.pieces()]
    brought = dict(zip(NAMES[2:], demand, strict=True))
    program = LinearProgram(len(pieces), brought, min(piece.rough_s(demand) for _, piece in pieces))
    for at, (node, piece) in enumerate(pieces):
        for constant, prefill, decode in piece.lines:
            line = {"iterations": constant, "prefill": prefill, "decode": decode, "seconds": -1.0}
            program.at_most_zero({at: line})
        program.at_most_zero({at: {"prefill": 1.0, "decode": 1.0, "iterations": -piece.most}})
        program.at_most_zero({at: {"prefill": -1.0, "decode": -1.0, "iterations": piece.least}})
        program.at_most_zero({at: {"decode": 1.0, "iterations": -node.places}})
    for node in nodes:
        mine = [at for at, (owner, _) in enumerate(pieces) if owner is node]
        program.at_most_zero({at: {"context": 1.0, "iterations": -node.kv_tokens} for at in mine})
        program.at_most_zero({at: pieces[at][1].price for at in mine}, cluster_s=-node.replicas)
    falls = any(decode < 0 for _, piece in pieces for _, _, decode in piece.lines)
    seconds, each = program.least(exactly=["decode"] if falls else [])
    context = sum(piece.per_decode_context * row[4] for (_, piece), row in zip(pieces, each, strict=True))
    attention = sum(
        piece.per_pair * row[5] + piece.per_prefill_context * row[6]
        for (_, piece), row in zip(pieces, each, strict=True)
    )
    return seconds, (float(each[:, 1].sum()), float(context), float(attention)), float(each[:, 0].sum())
