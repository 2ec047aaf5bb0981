"""What the candidate forms share: the columns that their coefficients multiply, and judging a structure quickly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.fitting.fit import significant
from llmsim.calibrate.fitting.robust_fit import quick_fit
from llmsim.costs.forms import UNITS, BatchTime, Coefficient
from llmsim.units import FS_PER_SECOND

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Table = NDArray[np.float64]
    Flags = NDArray[np.bool_]

KNOTS = 10
"""Places for knots that are tried: quantiles of the token counts."""


class TooFewCasesError(Exception):
    """A form cannot be fitted to so few cases; it is left out of the comparison, which says why."""


class Sums(NamedTuple):
    """What the columns are made of: tokens (cases,), and the column of every plain coefficient, (cases,) each."""

    tokens: Table
    column: Mapping[str, Table]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Sums:
        """The sums of a fit table."""
        held = {name: table[name].to_numpy(dtype=np.float64) for name in SUMS}
        tokens = held["prefill_tokens"] + held["decode_tokens"]
        column = {
            "constant": np.ones(len(table)),
            "per_token": tokens,
            "per_prefill_token": held["prefill_tokens"],
            "per_decode_token": held["decode_tokens"],
            "per_sequence": held["prefill_seqs"] + held["decode_tokens"],
            "per_decode_context": held["decode_context"],
            "per_prefill_attention": held["prefill_attention"],
            "per_prefill_context": held["prefill_context"],
        }
        return cls(tokens, column)

    def columns(self, names: Iterable[str]) -> Table:
        """Those columns side by side, shape (cases, names)."""
        return np.stack([self.column[name] for name in names], axis=1)


class FormFit(NamedTuple):
    """A fitted form: the batch time, which cases were left out, how many looked like outliers, and its design.

    `design` (cases, terms) holds the columns that the coefficients `names` multiply.
    """

    batch_time: BatchTime
    outliers: Flags
    suspects: int
    design: Table
    names: tuple[str, ...]


def quick_error(design: Table, seconds: Table) -> float:
    """Mean absolute relative error of the quick fit of a design (cases, terms): what structures are compared by."""
    return float(np.abs(design @ quick_fit(design, seconds) / seconds - 1.0).mean())


def knots_of(tokens: Table, least: int) -> list[int]:
    """Token counts at up to KNOTS quantiles, with at least `least` cases up to each and beyond it."""
    found = np.quantile(tokens, np.arange(1, KNOTS + 1) / (KNOTS + 1), method="lower")
    return [int(knot) for knot in np.unique(found) if least <= (tokens <= knot).sum() <= len(tokens) - least]


def sizes_between(tokens: Table, knots: tuple[int, ...]) -> list[int]:
    """Cases in each stratum."""
    below = [0, *(int((tokens <= knot).sum()) for knot in knots), len(tokens)]
    return [high - low for low, high in pairwise(below)]


def coefficients_of(names: Iterable[str], values: Table) -> tuple[Coefficient, ...]:
    """With an empty source, which is written once the errors are known (`selection`).

    What the cost model would round to no femtosecond is 0 here, too.
    """
    return tuple(
        Coefficient(name, significant(float(value)) if value * FS_PER_SECOND >= 0.5 else 0.0, UNITS[name], "")
        for name, value in zip(names, values, strict=True)
    )
