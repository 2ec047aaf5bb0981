"""CostModel: how long one iteration takes, given the sums that describe its batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from llmsim.units import FS_PER_SECOND

if TYPE_CHECKING:
    from llmsim.core.batch import Work


FOR_EVER = 1 << 60
"""Iterations: more than any run has."""


class CostModel(ABC):
    """Seconds that a batch takes. The one method to write is `seconds`.

    The loop prices in whole femtoseconds, so that sums over a run of decode iterations are exact and a
    macro-step ends at the same nanosecond as its iterations would one by one.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        """A class that prices in its own way does not inherit the short way of another class to `growth`."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "growth" not in own and not own.keys().isdisjoint(("seconds", "femtoseconds", "decode_slope")):
            cls.growth = CostModel.growth  # type: ignore[method-assign]

    @abstractmethod
    def seconds(self, work: Work) -> float:
        """Seconds one iteration of `work` takes; must be positive."""

    def femtoseconds(self, work: Work) -> int:
        """The same price in whole femtoseconds."""
        return round(self.seconds(work) * FS_PER_SECOND)

    def decode_slope(self, work: Work) -> int | None:
        """Femtoseconds that each further decode-context token adds to `work`, where the price is a line.

        A model that returns a number promises that for fixed tokens and sequences its price is linear in the
        three context sums (decode_context, prefill_context, prefill_attention), exactly, in femtoseconds.
        None (the default) makes the executor price repetitions one by one: slower, never different.
        A line may end: `linear_iterations` says when.
        """
        return None

    def growth(self, work: Work) -> int | None:
        """Femtoseconds by which every repetition of `work` costs more than the one before it (`Work.repeated`).

        None where the price is no line. As long as `linear_iterations` says; follows from the price and
        `decode_slope`, so only a model that knows a shorter way overrides it.
        """
        slope = self.decode_slope(work)
        if slope is None or slope < 0:
            return None
        if work.prefill_seqs:
            return self.femtoseconds(work.repeated(1)) - self.femtoseconds(work)
        return slope * work.decode_tokens

    def linear_iterations(self, work: Work) -> int:
        """How many repetitions of `work`, itself included, lie on the line of `decode_slope`; all, by default."""
        return FOR_EVER
