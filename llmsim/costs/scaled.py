"""A cost model whose every price is multiplied by one factor: the same device at another speed."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from llmsim.costs.base import CostModel
from llmsim.errors import CalibrationError
from llmsim.units import FS_PER_SECOND

if TYPE_CHECKING:
    from llmsim.batch import Work


class Scaled(CostModel):
    """`model` times `factor` (above 0), plus `constant_s` seconds that are not scaled.

    Prices are whole femtoseconds, rounded down; they are then no line in the contexts, so `decode_slope` is None and
    repetitions are priced one by one, with the same result.
    """

    def __init__(self, model: CostModel, factor: float, constant_s: float = 0.0) -> None:
        if not 0 < factor < 1e6:
            raise CalibrationError(f"a price can be scaled by a positive factor but got {factor}")
        exact = Fraction(factor)
        self._times, self._over = exact.numerator, exact.denominator
        self._model = model
        self._constant_fs = round(constant_s * FS_PER_SECOND)

    def femtoseconds(self, work: Work) -> int:
        """The scaled price and the constant."""
        return self._model.femtoseconds(work) * self._times // self._over + self._constant_fs

    def seconds(self, work: Work) -> float:
        """The same in seconds."""
        return self.femtoseconds(work) / FS_PER_SECOND
