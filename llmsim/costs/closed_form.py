"""What closed-form batch-time models share: coefficients rounded once to whole femtoseconds, exact prices.

A coefficient of 1e-10 s (a query-key pair on a fast GPU) is 100,000 fs, so rounding changes no price by more
than 5 parts in a million; in return the price of k decode iterations is a sum of ints, whoever adds it up.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from llmsim.costs.base import CostModel
from llmsim.errors import CalibrationError
from llmsim.units import FS_PER_SECOND

if TYPE_CHECKING:
    from llmsim.core.batch import Work


class WholeFemtoseconds(CostModel):
    """A model whose price is int arithmetic; `seconds` is that price, divided."""

    __slots__: tuple[str, ...] = ()

    @abstractmethod
    def femtoseconds(self, work: Work) -> int:
        """Whole femtoseconds one iteration of `work` takes; positive."""

    def seconds(self, work: Work) -> float:
        """Seconds one iteration of `work` takes: femtoseconds / 1e15."""
        return self.femtoseconds(work) / FS_PER_SECOND

    def __repr__(self) -> str:
        """The coefficients that are not zero, in femtoseconds."""
        names = [name for name in self.__slots__ if getattr(self, name)]
        held = ", ".join(f"{name.lstrip('_')}={getattr(self, name)}" for name in names)
        return f"{type(self).__name__}({held})"


class HasContexts(Protocol):
    """A model whose context terms are the same for every batch: femtoseconds a token of context, or a pair."""

    _decode_context: int
    _prefill_context: int
    _prefill_attention: int


def context_growth(self: HasContexts, work: Work) -> int:
    """`CostModel.growth` of such a model: a repetition adds a token a decode, and a chunk before the chunk."""
    chunk = work.prefill_tokens
    growth = self._decode_context * work.decode_tokens
    if chunk:
        growth += chunk * (self._prefill_context + self._prefill_attention * chunk)
    return growth


def to_femtoseconds(name: str, seconds: float, *, negative: bool = False) -> int:
    """Coefficient `name` in whole femtoseconds; finite, and not below zero unless `negative` allows it."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds * FS_PER_SECOND):
        raise CalibrationError(f"{name} must be a finite number of seconds but got {seconds!r}")
    if seconds < 0 and not negative:
        raise CalibrationError(f"{name} must be at least 0 seconds but got {seconds!r}")
    return round(seconds * FS_PER_SECOND)


def not_positive(model: CostModel, price: int, work: Work) -> CalibrationError:
    """What to raise for a batch that `model` prices at zero or less."""
    return CalibrationError(
        f"{type(model).__name__} prices {work!r} at {price / FS_PER_SECOND:.6g} s;"
        " a batch takes more than 0 s. This calibration does not hold there: use one that does,"
        " or --strict-range to stop at the first batch outside the profiled range"
    )
