"""The box a calibration was measured in, and the wrapper that refuses batches outside it.

A range holds for batches that have the thing at all: 0 means "not in this batch" and is never outside,
so a prompt-only batch does not violate decode_tokens 1-256. Sums without a range were not bounded by
whoever measured; they are listed by `Box.unbounded` and not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.costs.base import CostModel
from llmsim.errors import CalibrationError, did_you_mean

if TYPE_CHECKING:
    from llmsim.core.batch import Work

QUANTITIES = (
    "tokens",
    "sequences",
    "prefill_tokens",
    "prefill_seqs",
    "prefill_context",
    "prefill_attention",
    "decode_tokens",
    "decode_context",
)
"""What a box can bound: the sums of `llmsim.core.batch.Work`, per iteration."""


@dataclass(frozen=True, slots=True)
class Range:
    """Least and greatest measured value of one sum, both inclusive."""

    quantity: str
    low: int
    high: int

    def __post_init__(self) -> None:
        """Reject an unknown sum and an empty range."""
        if self.quantity not in QUANTITIES:
            hint = did_you_mean(self.quantity, QUANTITIES)
            raise CalibrationError(f"no range can be set on {self.quantity!r}.{hint}")
        if not 0 <= self.low <= self.high:
            raise CalibrationError(
                f"{self.quantity}: a range needs 0 <= min <= max but got {self.low} to {self.high}"
            )

    def holds(self, value: int) -> bool:
        """Whether `value` is inside, or 0: absent from the batch."""
        return not value or self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """The measured range of each sum, and where these ranges come from."""

    ranges: tuple[Range, ...]
    source: str

    @property
    def unbounded(self) -> tuple[str, ...]:
        """Sums without a range."""
        bounded = {item.quantity for item in self.ranges}
        return tuple(name for name in QUANTITIES if name not in bounded)

    def range(self, quantity: str) -> Range | None:
        """The range of one sum, None if it has none."""
        return next((item for item in self.ranges if item.quantity == quantity), None)

    def outside(self, work: Work) -> Iterator[tuple[Range, int]]:
        """Each range that `work` leaves, with its value."""
        for item in self.ranges:
            value: int = getattr(work, item.quantity)
            if not item.holds(value):
                yield item, value


class StrictRange(CostModel):
    """A model that raises at the first batch outside `box`; `name` is the calibration in the message.

    It has no decode slope: contexts grow while a batch repeats, and each repetition must be checked.
    Strict runs are slower for it, and otherwise the same.
    """

    def __init__(self, model: CostModel, box: Box, name: str = "this calibration") -> None:
        self.model = model
        self.box = box
        self.name = name

    def seconds(self, work: Work) -> float:
        """The model's price in seconds, if `work` is inside the box."""
        self._check(work)
        return self.model.seconds(work)

    def femtoseconds(self, work: Work) -> int:
        """The model's price, if `work` is inside the box."""
        self._check(work)
        return self.model.femtoseconds(work)

    def _check(self, work: Work) -> None:
        for item, value in self.box.outside(work):
            raise CalibrationError(
                f"{item.quantity}={value} is outside the profiled range {item.low}-{item.high}"
                f" for {self.name};"
                f" re-run `llmsim profile` with cases that reach {value}, or drop --strict-range"
            )
