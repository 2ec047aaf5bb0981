"""The forms of batch time that are compared: each says which columns its coefficients multiply.

Once its structure is fixed (the cases on the floor of a hinge, the tokens of a tile, the knots between strata), every
form is a sum of columns times coefficients that are not negative. A structure is tried by a quick fit and judged by its
mean absolute relative error, which a few strays do not sway; the best one is fitted robustly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from llmsim.calibrate.fitting.design import (
    FormFit,
    Sums,
    TooFewCasesError,
    coefficients_of,
    knots_of,
    quick_error,
    sizes_between,
)
from llmsim.calibrate.fitting.robust_fit import quick_fit, robust_fit
from llmsim.costs.forms import BatchTime, Stratum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float64]
    Flags = NDArray[np.bool_]

TILES = (16, 32, 64, 128, 256)
REFINED = 24
"""Token counts around a knot's best quantile that are tried."""
ROUNDS = 20
"""Alternations of a hinge at most; it settles in three or four."""


@dataclass(frozen=True, slots=True)
class Plain:
    """`linear`: the terms as they are."""

    name: str
    terms: tuple[str, ...]
    form: str = "linear"

    @property
    def size(self) -> int:
        """Numbers that the data decides."""
        return len(self.terms)

    def fit(self, sums: Sums, seconds: Table) -> FormFit:
        """The robust fit to batches that took `seconds`, (cases,)."""
        design = sums.columns(self.terms)
        found = robust_fit(design, seconds)
        batch_time = BatchTime(form="linear", coefficients=coefficients_of(self.terms, found.coefficients))
        return FormFit(batch_time, found.outliers, found.suspects, design, self.terms)


@dataclass(frozen=True, slots=True)
class Steps:
    """`tiled`: a price for every tile of tokens that is begun; the size of a tile is one of TILES."""

    name: str
    terms: tuple[str, ...]
    form: str = "tiled"

    @property
    def size(self) -> int:
        """Numbers that the data decides, the tile's size among them."""
        return len(self.terms) + 2

    def fit(self, sums: Sums, seconds: Table) -> FormFit:
        """The best tile size and the robust fit with it."""
        names = (*self.terms, "per_tile")
        tile = min(TILES, key=lambda tile: quick_error(self._design(sums, tile), seconds))
        design = self._design(sums, tile)
        found = robust_fit(design, seconds)
        coefficients = coefficients_of(names, found.coefficients)
        batch_time = BatchTime(form="tiled", coefficients=coefficients, tile_tokens=tile)
        return FormFit(batch_time, found.outliers, found.suspects, design, names)

    def _design(self, sums: Sums, tile: int) -> Table:
        return np.column_stack([sums.columns(self.terms), np.ceil(sums.tokens / tile)])


@dataclass(frozen=True, slots=True)
class Floor:
    """`hinge`: cases lie on the floor or on the slope, and which ones is found by alternating with the fit."""

    name: str
    terms: tuple[str, ...]
    form: str = "hinge"

    @property
    def size(self) -> int:
        """Numbers that the data decides, the floor among them."""
        return len(self.terms) + 1

    def fit(self, sums: Sums, seconds: Table) -> FormFit:
        """The best of several beginnings, each with the cases of up to some number of tokens on the floor."""
        names = ("floor", *self.terms)
        found = [self._settle(sums, seconds, sums.tokens <= limit) for limit in knots_of(sums.tokens, 1)]
        if not found:
            raise TooFewCasesError("all cases have the same number of tokens")
        _, floor = min(found, key=lambda item: item[0])
        design = self._design(sums, floor)
        fitted = robust_fit(design, seconds)
        batch_time = BatchTime(form="hinge", coefficients=coefficients_of(names, fitted.coefficients))
        return FormFit(batch_time, fitted.outliers, fitted.suspects, design, names)

    def _settle(self, sums: Sums, seconds: Table, floor: Flags) -> tuple[float, Flags]:
        """Fit, put every case on the higher of floor and slope, and again, until none changes; the best on the way."""
        best = (np.inf, floor)
        for _ in range(ROUNDS):
            if not 2 <= floor.sum() <= len(floor) - 2:
                break
            level, *slope = quick_fit(self._design(sums, floor), seconds)
            own = sums.columns(self._linear()) @ np.array(slope)[: len(self._linear())]
            contexts = sums.columns(self._contexts()) @ np.array(slope)[len(self._linear()) :]
            error = float(np.abs((np.maximum(level, own) + contexts) / seconds - 1.0).mean())
            best = min(best, (error, floor), key=lambda item: item[0])
            moved = own < level
            if (moved == floor).all():
                break
            floor = moved
        return best

    def _linear(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms if name in ("constant", "per_token", "per_sequence"))

    def _contexts(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms if name not in self._linear())

    def _design(self, sums: Sums, floor: Flags) -> Table:
        slope = sums.columns(self._linear()) * ~floor[:, None]
        return np.column_stack([floor.astype(np.float64), slope, sums.columns(self._contexts())])


@dataclass(frozen=True, slots=True)
class Strata:
    """`stratified`: ranges of the token count, each with its own `terms`; `shared` terms are the same in all.

    Knots lie between quantiles of the measured token counts, with enough cases on both sides for the terms.
    """

    name: str
    terms: tuple[str, ...]
    shared: tuple[str, ...]
    strata: int
    form: str = "stratified"

    @property
    def size(self) -> int:
        """Numbers that the data decides, knots among them."""
        return self.strata * (len(self.terms) + 1) - 1 + len(self.shared)

    def fit(self, sums: Sums, seconds: Table) -> FormFit:
        """The best knots and the robust fit with them."""
        least = max(3 * len(self.terms), 10)
        found = combinations(knots_of(sums.tokens, least), self.strata - 1)
        usable = [knots for knots in found if min(sizes_between(sums.tokens, knots)) >= least]
        if not usable:
            raise TooFewCasesError(f"no knots leave {least} cases to each of {self.strata} strata")
        knots = min(usable, key=lambda knots: quick_error(self._design(sums, knots), seconds))
        knots = self._refined(knots, least, sums, seconds)
        design = self._design(sums, knots)
        fitted = robust_fit(design, seconds)
        own = np.array(fitted.coefficients)[: self.strata * len(self.terms)].reshape(self.strata, -1)
        common = fitted.coefficients[self.strata * len(self.terms) :]
        strata = tuple(
            Stratum(
                max_tokens=limit,
                batch_time=BatchTime(
                    form="linear",
                    coefficients=coefficients_of((*self.terms, *self.shared), np.concatenate([mine, common])),
                ),
            )
            for limit, mine in zip([*knots, None], own, strict=True)
        )
        labels = [f" in stratum {i}" for i in range(1, self.strata + 1)]
        names = (*(name + label for label in labels for name in self.terms), *self.shared)
        batch_time = BatchTime(form="stratified", strata=strata)
        return FormFit(batch_time, fitted.outliers, fitted.suspects, design, names)

    def _refined(self, knots: tuple[int, ...], least: int, sums: Sums, seconds: Table) -> tuple[int, ...]:
        """Each knot moved in turn to the best token count between the quantiles beside it."""
        grid = [0, *knots_of(sums.tokens, least), int(sums.tokens.max())]
        for i, knot in enumerate(knots):
            at = grid.index(knot)
            near = np.unique(sums.tokens[(sums.tokens > grid[at - 1]) & (sums.tokens < grid[at + 1])])
            near = near[np.unique(np.linspace(0, len(near) - 1, min(REFINED, len(near))).astype(int))]
            tries = [knots] + [(*knots[:i], int(value), *knots[i + 1 :]) for value in near]
            usable = [one for one in tries if min(sizes_between(sums.tokens, one)) >= least]
            knots = min(usable, key=lambda knots: quick_error(self._design(sums, knots), seconds))
        return knots

    def _design(self, sums: Sums, knots: tuple[int, ...]) -> Table:
        stratum = np.searchsorted(knots, sums.tokens)
        own = sums.columns(self.terms)
        parts = [own * (stratum == i)[:, None] for i in range(self.strata)]
        return np.column_stack([*parts, sums.columns(self.shared)] if self.shared else parts)


Form = Plain | Steps | Floor | Strata
