"""SimulatedExecutor: iteration times from a cost model, runs of decodes in closed form."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, overload

from llmsim.core.ramp import Ramp
from llmsim.errors import CalibrationError
from llmsim.executors.base import Executor
from llmsim.units import FS_PER_NS, FS_PER_SECOND

if TYPE_CHECKING:
    from llmsim.core.batch import Batch, Work
    from llmsim.costs.base import CostModel

LONGEST_RUN_NS = (1 << 61) // FS_PER_NS
"""Cap on one macro-step (about 38 minutes of simulated time): its expansion in femtoseconds fits 64-bit integers."""


class SimulatedExecutor(Executor):
    """Prices batches with `cost`; `host_overhead_s` seconds are added to every iteration.

    Times are summed in whole femtoseconds; what is left below a nanosecond is carried into the next iteration
    if that follows at once. So a run of decodes priced as one ramp ends at the very nanosecond at which the
    same iterations end one by one.
    """

    def __init__(self, cost: CostModel, host_overhead_s: float = 0.0) -> None:
        self.cost = cost
        self._overhead_fs = round(host_overhead_s * FS_PER_SECOND)
        self._carry_fs = 0
        self._end_ns = -1

    def execute(self, batch: Batch, start_ns: int, iterations: int) -> Sequence[int]:
        """As in Executor. Raises CalibrationError for a price below one nanosecond."""
        cost = self.cost
        price = cost.femtoseconds(batch) + self._overhead_fs
        if price < FS_PER_NS:
            raise CalibrationError(
                f"the cost model prices {batch_summary(batch)} at {price / FS_PER_SECOND} s; a batch must take at "
                "least 1 ns: check the calibration's coefficients and range"
            )
        carry = self._carry_fs if start_ns == self._end_ns else 0
        if iterations > 1:
            growth = cost.growth(batch)
            if growth is None:
                return self._one_by_one(batch, start_ns, carry, iterations)
            return self._ramp(start_ns, carry, price, growth, min(iterations, cost.linear_iterations(batch)))
        elapsed_ns, self._carry_fs = divmod(carry + price, FS_PER_NS)
        self._end_ns = end = start_ns + elapsed_ns
        return (end,)

    def _ramp(self, start_ns: int, carry: int, first: int, growth: int, n: int) -> Ramp:
        ramp = Ramp(start_ns, carry, first, growth, n)
        while n > 1 and ramp.end_ns - start_ns > LONGEST_RUN_NS:
            n //= 2
            ramp = Ramp(start_ns, carry, first, growth, n)
        self._carry_fs, self._end_ns = ramp.carry_out, ramp.end_ns
        return ramp

    def _one_by_one(self, batch: Work, start_ns: int, carry: int, iterations: int) -> Sequence[int]:
        """A run for models whose price is no line in the context; 64 iterations at most, as it may be cut."""
        prices = [self.cost.femtoseconds(batch.repeated(i)) + self._overhead_fs for i in range(min(iterations, 64))]
        elapsed = list(accumulate(prices, initial=carry))[1:]
        ends = Elapsed(start_ns, elapsed)
        self._carry_fs, self._end_ns = elapsed[-1] % FS_PER_NS, ends[-1]
        return ends

    def truncate(self, ends: Sequence[int], now: int) -> Sequence[int]:
        """As in Executor; the carry becomes that of the last iteration kept."""
        if isinstance(ends, Ramp):
            ends = ends.until(now)
            self._carry_fs, self._end_ns = ends.carry_out, ends.end_ns
        elif isinstance(ends, Elapsed):
            ends = Elapsed(ends.start_ns, ends.fs[: bisect_left(ends, now) + 1])
            self._carry_fs, self._end_ns = ends.fs[-1] % FS_PER_NS, ends[-1]
        return ends


class Elapsed(Sequence[int]):
    """End times of a run as femtoseconds since its start, one by one."""

    __slots__ = ("fs", "start_ns")

    def __init__(self, start_ns: int, fs: list[int]) -> None:
        self.start_ns = start_ns
        self.fs = fs

    def __len__(self) -> int:
        return len(self.fs)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self.start_ns + fs // FS_PER_NS for fs in self.fs[index]]
        return self.start_ns + self.fs[index] // FS_PER_NS


def batch_summary(work: Work) -> str:
    """A batch in words, for error messages."""
    return (
        f"a batch of {work.prefill_tokens} prefill tokens and {work.decode_tokens} decodes with "
        f"{work.decode_context} tokens of context"
    )
