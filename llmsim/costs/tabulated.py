"""Batch time from tables of measured kernels: what depends on tokens, on sequences, on prefill and on decodes.

    tokens(n, padded)  +  sequences(s)  +  prefill  +  decodes  +  mixed_pair * c * s
    prefill = prefill_base(p) + prefill_per_key(p) * keys            keys = prefill_attention / p
              at least decode(q, keys held), decode_mixed(q, keys held) where there is a past: prefill_context > 0
    decodes = decode[_mixed](d, mean context) + spread
    spread  = decode[_mixed]_tail(d) * what the longest context is above the mean, see `Tail`

with n tokens, p of them prompt tokens in q chunks (c = p / q), d decodes, s = q + d sequences. A chunk reads all keys
that its sequence holds (prefill_context + p), as a decode of that context does, so it costs no less. Between the
points of a table values are interpolated linearly, beyond the last ones they go on as between the last two. `mixed`
tables hold where prompt chunks run in the same batch: FlashAttention 2 then treats each decode as a prompt tile.

Batches of up to the largest of `padding` tokens run at the next of these sizes (CUDA graphs) and pay `graph_gaps`;
larger ones pay `launch_gaps`: seconds between kernels, of the whole iteration.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmsim.costs.base import FOR_EVER
from llmsim.costs.closed_form import WholeFemtoseconds, not_positive, to_femtoseconds
from llmsim.costs.curves import Curve, Surface

if TYPE_CHECKING:
    from llmsim.core.batch import Work


class Tail:
    """Seconds that a batch of unequal decodes waits for its longest one.

    A sequence longer than the mean is read on after the others, by few of the device's multiprocessors. `curve`
    says for d decodes what each token above the mean costs if the longest starts last (worst), the way it is
    measured. Where it starts is up to the order in the batch: if d sequences run in w = d / `per_wave` waves, one
    that starts u waves before the last has been read u times the mean further by then. All u from 0 to w - 1 count
    alike.
    """

    def __init__(self, curve: Curve, per_wave: float) -> None:
        self._curve = curve
        self._per_wave = per_wave

    def rate(self, decodes: int) -> int:
        """Femtoseconds for each token above the mean, if the longest starts last."""
        return self._curve.femtoseconds(decodes)

    def femtoseconds(self, work: Work) -> int:
        """What the batch pays; 0 if its longest sequence is not known."""
        longest, decodes = work.decode_longest, work.decode_tokens
        rate = self.rate(decodes)
        if not rate or longest * decodes <= work.decode_context:
            return 0
        mean = work.decode_context / decodes
        above, earlier = longest / mean - 1, decodes / self._per_wave - 1
        if earlier > 0:  # the mean of max(0, above - u) over u from 0 to `earlier`
            reach = min(above, earlier)
            above = (above * reach - reach * reach / 2) / earlier
        return round(rate * mean * above)


class Prompts:
    """Attention of a batch's prompt chunks: its query-key pairs, and no less than reading the keys of a past.

    `readings` are what decodes cost alone and beside prompts: a chunk reads the keys that its sequence holds at least
    once, as a decode of that context does. Whole prompts were measured as they are, so nothing bounds them.
    """

    __slots__ = ("_base", "_known", "_per_key", "_readings")

    def __init__(self, base: Curve, per_key: Curve, readings: Sequence[Surface]) -> None:
        self._base = base
        self._per_key = per_key
        self._readings = list(dict.fromkeys(readings))
        self._known: dict[int, tuple[int, int, bool]] = {}

    def femtoseconds(self, work: Work) -> int:
        """What the chunks of `work` cost."""
        tokens, past = work.prefill_tokens, work.prefill_context
        base, pair, above = self._known.get(tokens) or self._prepare(tokens)
        price = base + pair * work.prefill_attention
        if past and not (above and work.prefill_seqs == 1):
            for surface in self._readings:
                intercept, slope = surface.line(work.prefill_seqs, past + tokens)
                price = max(price, intercept + slope * (past + tokens))
        return price

    def _prepare(self, tokens: int) -> tuple[int, int, bool]:
        """(floor, fs a pair, whether the pairs of one chunk of so many tokens are above its reading on any past)."""
        # Whole femtoseconds a pair: a prompt's chunks of one size are then exactly a line.
        base, pair = self._base.femtoseconds(tokens), round(self._per_key.femtoseconds(tokens) / tokens)
        whole = base + pair * (tokens * (tokens + 1) // 2)
        above = True
        for surface in self._readings:
            intercept, slope = surface.line(1, tokens)
            above &= whole >= intercept + slope * tokens and pair * tokens >= surface.steepest(1, tokens)
        known = self._known[tokens] = base, pair, above
        return known

    def linear_iterations(self, work: Work) -> int:
        """Repetitions of the one chunk of `work`, itself included, for which the same line is the greatest.

        Each line is (price now, growth with each chunk); a line of the readings ends with its stretch.
        """
        tokens, keys = work.prefill_tokens, work.prefill_context + work.prefill_tokens
        base, pair, above = self._known.get(tokens) or self._prepare(tokens)
        count = FOR_EVER
        if above:
            return count
        lines = [(base + pair * work.prefill_attention, pair * tokens * tokens)]
        for surface in self._readings:
            intercept, slope = surface.line(work.prefill_seqs, keys)
            lines.append((intercept + slope * keys, slope * tokens))
            room = surface.room(work.prefill_seqs, keys)
            if room is not None:
                count = min(count, room // tokens + 1)
        price, growth = max(lines)
        if not work.prefill_context and price > lines[0][0]:
            return 1  # this one has no past yet, the next has
        overtaking = [(price - other) // (rise - growth) for other, rise in lines if rise > growth]
        return min([count, *(times + 1 for times in overtaking)])


class Tabulated(WholeFemtoseconds):
    """Prices a batch from the tables above; `tables` by name, in seconds, `coefficients` in seconds too.

    `tokens` is required; without `decode_mixed` a decode costs the same beside prompts. Raises CalibrationError for
    tables that do not rise in their arguments, and for batches that would cost nothing.
    """

    __slots__ = ("_constant", "_decode", "_gaps", "_mixed", "_mixed_pair", "_padding", "_prompts", "_sequences",
                 "_tail", "_tail_mixed", "_tokens")  # fmt: skip

    def __init__(
        self,
        *,
        tables: Mapping[str, Curve | Surface],
        padding: Sequence[int] = (),
        waves: tuple[float, float] = (1.0, 1.0),
        constant: float = 0.0,
        mixed_pair: float = 0.0,
        graph_gaps: float = 0.0,
        launch_gaps: float = 0.0,
    ) -> None:
        curves = {name: table for name, table in tables.items() if isinstance(table, Curve)}
        surfaces = {name: table for name, table in tables.items() if isinstance(table, Surface)}
        nothing = Curve.zero()
        self._tokens = curves["tokens"]
        self._sequences = curves.get("sequences", nothing)
        self._decode = surfaces.get("decode", Surface.zero())
        self._mixed = surfaces.get("decode_mixed", self._decode)
        base, per_key = curves.get("prefill_base", nothing), curves.get("prefill_per_key", nothing)
        self._prompts = Prompts(base, per_key, (self._decode, self._mixed))
        self._tail = Tail(curves.get("decode_tail", nothing), waves[0])
        self._tail_mixed = Tail(curves.get("decode_mixed_tail", nothing), waves[1])
        self._padding = list(padding)
        self._constant = to_femtoseconds("constant", constant)
        self._gaps = to_femtoseconds("graph_gaps", graph_gaps), to_femtoseconds("launch_gaps", launch_gaps)
        self._mixed_pair = to_femtoseconds("mixed_pair", mixed_pair)

    def femtoseconds(self, work: Work) -> int:
        """The sum of the terms; CalibrationError if it is not positive."""
        prefill, decodes = work.prefill_tokens, work.decode_tokens
        price = self._linear_layers(prefill + decodes) + self._sequences.femtoseconds(work.prefill_seqs + decodes)
        if prefill:
            price += self._prompts.femtoseconds(work)
        if decodes:
            surface, tail = (self._mixed, self._tail_mixed) if prefill else (self._decode, self._tail)
            intercept, slope = surface.line(decodes, work.decode_context)
            price += intercept + slope * work.decode_context + tail.femtoseconds(work)
            if prefill:
                price += self._mixed_pair * prefill * (work.prefill_seqs + decodes) // work.prefill_seqs
        if price <= 0:
            raise not_positive(self, price, work)
        return price

    def _linear_layers(self, tokens: int) -> int:
        padding = self._padding
        graph = bool(padding) and tokens <= padding[-1]
        if graph:
            tokens = padding[bisect_left(padding, tokens)]
        return self._constant + self._tokens.femtoseconds(tokens) + self._gaps[0 if graph else 1]

    def decode_slope(self, work: Work) -> int | None:
        """The slope of the stretch of the decode table; None where the batch waits for its longest: that is no line."""
        decodes, context = work.decode_tokens, work.decode_context
        surface, tail = (self._mixed, self._tail_mixed) if work.prefill_tokens else (self._decode, self._tail)
        if not decodes:
            return 0
        return None if tail.rate(decodes) else surface.line(decodes, context)[1]

    def linear_iterations(self, work: Work) -> int:
        """Repetitions until the sum of contexts leaves its stretch of the table, or the chunk's price its line."""
        decodes = work.decode_tokens
        count = self._prompts.linear_iterations(work) if work.prefill_tokens else FOR_EVER
        if not decodes:
            return count
        surface = self._mixed if work.prefill_tokens else self._decode
        room = surface.room(decodes, work.decode_context)
        return count if room is None else min(count, room // decodes + 1)

    def __repr__(self) -> str:
        """The tables' names and sizes."""
        return f"Tabulated(tokens={self._tokens!r}, decode={self._decode!r})"
