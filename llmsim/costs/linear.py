"""Batch time as a sum of terms, without (`Linear`) and with (`Hinge`) the floor of reading the weights once.

    Linear   constant + per_token n + per_prefill_token p + per_decode_token d + per_sequence s + contexts
    Hinge    max(floor, constant + per_token n + per_sequence s) + contexts
    contexts = per_decode_context * decode_context + per_prefill_attention * prefill_attention
             + per_prefill_context * prefill_context

with n = p + d tokens and s sequences; the sums are those of `llmsim.core.batch.Work`. Every coefficient is in
seconds and is rounded once to a whole femtosecond. `Work` without prompt tokens has no prefill sums: the
prefill terms are not even looked at then.

`femtoseconds` runs once per simulated iteration, so it reads slots, multiplies ints and does nothing else;
folding the token terms into one coefficient per prompt token and one per decode halves the multiplications.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.costs.closed_form import WholeFemtoseconds, context_growth, not_positive, to_femtoseconds
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    from llmsim.core.batch import Work


class Linear(WholeFemtoseconds):
    """A plain sum of terms.

    The token coefficients may be negative, since a published least-squares fit can hold such a number;
    a batch that would then cost nothing raises CalibrationError. `per_decode_context` may not, so that a
    positive price stays positive while contexts grow.
    """

    __slots__ = (
        "_constant",
        "_decode",
        "_decode_context",
        "_prefill",
        "_prefill_attention",
        "_prefill_context",
        "_prefill_seq",
    )

    def __init__(
        self,
        *,
        constant: float = 0.0,
        per_token: float = 0.0,
        per_prefill_token: float = 0.0,
        per_decode_token: float = 0.0,
        per_decode_context: float = 0.0,
        per_prefill_attention: float = 0.0,
        per_prefill_context: float = 0.0,
        per_sequence: float = 0.0,
    ) -> None:
        token = to_femtoseconds("per_token", per_token, negative=True)
        sequence = to_femtoseconds("per_sequence", per_sequence)
        self._constant = to_femtoseconds("constant", constant)
        self._prefill = token + to_femtoseconds("per_prefill_token", per_prefill_token, negative=True)
        # A decode is one token and one sequence.
        self._decode = token + to_femtoseconds("per_decode_token", per_decode_token, negative=True) + sequence
        self._prefill_seq = sequence
        self._decode_context = to_femtoseconds("per_decode_context", per_decode_context)
        self._prefill_attention = to_femtoseconds("per_prefill_attention", per_prefill_attention)
        self._prefill_context = to_femtoseconds("per_prefill_context", per_prefill_context)

    def femtoseconds(self, work: Work) -> int:
        """The sum of the terms; CalibrationError if it is not positive."""
        price = (
            self._constant + self._decode * work.decode_tokens + self._decode_context * work.decode_context
        )
        if work.prefill_tokens:
            price += (
                self._prefill * work.prefill_tokens
                + self._prefill_seq * work.prefill_seqs
                + self._prefill_attention * work.prefill_attention
                + self._prefill_context * work.prefill_context
            )
        if price <= 0:
            raise not_positive(self, price, work)
        return price

    def decode_slope(self, work: Work) -> int:
        """Femtoseconds per further decode-context token: the same for every batch."""
        return self._decode_context

    growth = context_growth


class Hinge(WholeFemtoseconds):
    """A floor that few tokens do not get below (the weights are read once), and a slope above it.

    Tokens and sequences hide behind the floor; attention and contexts are paid on top of it. No coefficient
    may be negative and either `floor` or `constant` must be positive, so every price is.
    """

    __slots__ = (
        "_constant",
        "_decode",
        "_decode_context",
        "_floor",
        "_prefill",
        "_prefill_attention",
        "_prefill_context",
        "_prefill_seq",
    )

    def __init__(
        self,
        *,
        floor: float,
        constant: float = 0.0,
        per_token: float = 0.0,
        per_sequence: float = 0.0,
        per_decode_context: float = 0.0,
        per_prefill_attention: float = 0.0,
        per_prefill_context: float = 0.0,
    ) -> None:
        self._floor = to_femtoseconds("floor", floor)
        self._constant = to_femtoseconds("constant", constant)
        self._prefill = to_femtoseconds("per_token", per_token)
        self._prefill_seq = to_femtoseconds("per_sequence", per_sequence)
        self._decode = self._prefill + self._prefill_seq
        self._decode_context = to_femtoseconds("per_decode_context", per_decode_context)
        self._prefill_attention = to_femtoseconds("per_prefill_attention", per_prefill_attention)
        self._prefill_context = to_femtoseconds("per_prefill_context", per_prefill_context)
        if self._floor + self._constant <= 0:
            raise CalibrationError("Hinge needs a floor or a constant above 0 s but got 0 for both")

    def femtoseconds(self, work: Work) -> int:
        """max(floor, constant + token and sequence terms) + context terms."""
        prefill = work.prefill_tokens
        linear = self._constant + self._decode * work.decode_tokens
        if prefill:
            linear += self._prefill * prefill + self._prefill_seq * work.prefill_seqs
        # Written out: a call of max() costs as much as all the products here.
        price = (linear if linear > self._floor else self._floor) + self._decode_context * work.decode_context
        if prefill:
            price += (
                self._prefill_attention * work.prefill_attention
                + self._prefill_context * work.prefill_context
            )
        return price

    def decode_slope(self, work: Work) -> int:
        """Femtoseconds per further decode-context token: contexts never lift a batch off its floor."""
        return self._decode_context

    growth = context_growth
