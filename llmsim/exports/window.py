"""Which stretch of a run's clock an export shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmsim.errors import ConfigError
from llmsim.metrics.quantiles import Ints
from llmsim.metrics.timeline import Mask
from llmsim.units import to_ns


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the simulation's clock, seconds; None: open.

    Raises ConfigError if it is empty or starts before 0.
    """

    from_s: float | None = None
    to_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--from-s", self.from_s), ("--to-s", self.to_s)):
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be at least 0 seconds but got {value:g}")
        if self.from_s is not None and self.to_s is not None and self.from_s >= self.to_s:
            raise ConfigError(f"--to-s must be above --from-s, {self.from_s:g}, but got {self.to_s:g}")

    @property
    def start_ns(self) -> int:
        """Its start; 0 if open."""
        return 0 if self.from_s is None else to_ns(self.from_s)

    @property
    def end_ns(self) -> int:
        """Its end; the last time an int64 holds if open."""
        return int(np.iinfo(np.int64).max) if self.to_s is None else to_ns(self.to_s)

    def overlaps(self, start_ns: Ints, end_ns: Ints) -> Mask:
        """Which stretches (rows,) share a time with it, bool."""
        mask: Mask = (start_ns < self.end_ns) & (end_ns > self.start_ns)
        return mask


OPEN = Window()
"""The whole run."""
