"""Batch times with steps in the token count: `Stratified` picks a model by it, `Tiled` pays whole GEMM tiles.

    Stratified   the first model whose max_tokens is not below n (Niyama: n <= 512, n > 512)
    Tiled        constant + per_tile * ceil(n / tile_tokens) + per_token n + contexts, as in `linear`

Both steps depend on the number of tokens alone, which growing contexts do not change: the slope of a
decode-only batch is that of its stratum or tile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmsim.costs.base import CostModel
from llmsim.costs.closed_form import WholeFemtoseconds, context_growth, not_positive, to_femtoseconds
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    from llmsim.core.batch import Work


class Stratified(WholeFemtoseconds):
    """One model per range of the iteration's total tokens.

    `strata` is a list of (max_tokens, model) with rising max_tokens, bounds inclusive; the last max_tokens
    is None, so that no token count is without a price.
    """

    __slots__ = ("_limits", "_models", "_prices")

    def __init__(self, strata: Sequence[tuple[int | None, CostModel]]) -> None:
        limits = [limit for limit, _ in strata]
        if not limits or limits[-1] is not None:
            raise CalibrationError(f"max_tokens of the last of the strata must be None but they are {limits}")
        bounds = [0 if limit is None else limit for limit in limits[:-1]]
        if any(low >= high for low, high in zip([0, *bounds], bounds, strict=False)):
            raise CalibrationError(f"max_tokens of the strata must be positive and rise but are {limits}")
        self._limits = bounds
        self._models = [model for _, model in strata]
        self._prices = [model.femtoseconds for model in self._models]

    def __repr__(self) -> str:
        """The strata with their upper bounds."""
        return f"Stratified({list(zip([*self._limits, None], self._models, strict=True))})"

    def femtoseconds(self, work: Work) -> int:
        """The price of the stratum that holds the iteration's token count."""
        return self._prices[bisect_left(self._limits, work.prefill_tokens + work.decode_tokens)](work)

    def decode_slope(self, work: Work) -> int | None:
        """The slope of the stratum that holds the iteration's token count."""
        stratum = bisect_left(self._limits, work.prefill_tokens + work.decode_tokens)
        return self._models[stratum].decode_slope(work)

    def growth(self, work: Work) -> int | None:
        """As in the stratum that holds the iteration's token count, which repetitions do not change."""
        return self._models[bisect_left(self._limits, work.prefill_tokens + work.decode_tokens)].growth(work)

    def linear_iterations(self, work: Work) -> int:
        """As in the stratum that holds the iteration's token count, which repetitions do not change."""
        stratum = bisect_left(self._limits, work.prefill_tokens + work.decode_tokens)
        return self._models[stratum].linear_iterations(work)


class Tiled(WholeFemtoseconds):
    """Tokens are computed in whole tiles: 129 tokens cost as many tiles of 128 as 256 do."""

    __slots__ = (
        "_constant",
        "_decode_context",
        "_prefill_attention",
        "_prefill_context",
        "_tile",
        "_tile_tokens",
        "_token",
    )

    def __init__(
        self,
        *,
        tile_tokens: int,
        per_tile: float,
        constant: float = 0.0,
        per_token: float = 0.0,
        per_decode_context: float = 0.0,
        per_prefill_attention: float = 0.0,
        per_prefill_context: float = 0.0,
    ) -> None:
        if isinstance(tile_tokens, bool) or not isinstance(tile_tokens, int) or tile_tokens < 1:
            raise CalibrationError(f"tile_tokens must be a whole number above 0 but got {tile_tokens!r}")
        self._tile_tokens = tile_tokens
        self._tile = to_femtoseconds("per_tile", per_tile)
        self._constant = to_femtoseconds("constant", constant)
        self._token = to_femtoseconds("per_token", per_token)
        self._decode_context = to_femtoseconds("per_decode_context", per_decode_context)
        self._prefill_attention = to_femtoseconds("per_prefill_attention", per_prefill_attention)
        self._prefill_context = to_femtoseconds("per_prefill_context", per_prefill_context)
        if self._constant + self._tile + self._token <= 0:
            raise CalibrationError("Tiled needs a constant, per_tile or per_token above 0 s but all are 0")

    def femtoseconds(self, work: Work) -> int:
        """The sum of the terms, with the last tile paid in full."""
        prefill = work.prefill_tokens
        tokens = prefill + work.decode_tokens
        price = (
            self._constant
            + self._tile * (-(-tokens // self._tile_tokens))
            + self._token * tokens
            + self._decode_context * work.decode_context
        )
        if prefill:
            price += (
                self._prefill_attention * work.prefill_attention
                + self._prefill_context * work.prefill_context
            )
        if price <= 0:
            raise not_positive(self, price, work)
        return price

    def decode_slope(self, work: Work) -> int:
        """Femtoseconds per further decode-context token: the same for every batch."""
        return self._decode_context

    growth = context_growth
