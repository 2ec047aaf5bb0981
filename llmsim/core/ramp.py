"""Ramp: when the iterations of a run end, each longer than the one before by the same amount."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import overload

from llmsim.units import FS_PER_NS


class Ramp(Sequence[int]):
    """End times of a run of iterations, each longer than the one before by the same amount.

    Iteration i = 0 .. n-1 ends at start_ns + floor((carry + first * (i+1) + growth * i * (i+1) / 2) / 10**6):
    a sequence of ints that is never written out, so a run costs the same whatever its length.
    `carry`, `first` and `growth` are femtoseconds, `carry` below one nanosecond.
    """

    __slots__ = ("carry", "carry_out", "end_ns", "first", "growth", "n", "start_ns")

    def __init__(self, start_ns: int, carry: int, first: int, growth: int, n: int) -> None:
        self.start_ns = start_ns
        self.carry = carry
        self.first = first
        self.growth = growth
        self.n = n
        elapsed_ns, self.carry_out = divmod(carry + first * n + growth * (n * (n - 1) // 2), FS_PER_NS)
        self.end_ns = start_ns + elapsed_ns
        """End of the last iteration; `carry_out` femtoseconds more are left over."""

    def __len__(self) -> int:
        return self.n

    def elapsed_fs(self, iterations: int) -> int:
        """Femtoseconds from start_ns to the end of the first `iterations` iterations."""
        return self.carry + self.first * iterations + self.growth * (iterations * (iterations - 1) // 2)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if index == -1:  # first, as the loop asks for nothing else
            return self.end_ns
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.n))]
        if index < 0:
            index += self.n
        if not 0 <= index < self.n:
            raise IndexError(index)
        return self.start_ns + self.elapsed_fs(index + 1) // FS_PER_NS

    def until(self, now: int) -> Ramp:
        """The run cut after the first iteration that ends at or after `now`."""
        k = self._reaching(now)
        return self if k == self.n else Ramp(self.start_ns, self.carry, self.first, self.growth, k)

    def count_before(self, now: int) -> int:
        """Iterations that end before `now`: bisect_left in closed form."""
        return self.n if self.end_ns < now else self._reaching(now) - 1

    def standing(self, now: int, done: int = 0) -> tuple[int, int]:
        """Iterations that end before `now`, and when the next one ends; `now` if none is left.

        At least `done` are known to end before: who looks often finds the next end a step or two on.
        """
        if self.end_ns < now:
            return self.n, now
        for k in (done + 1, done + 2):
            end = self.start_ns + (self.carry + self.first * k + self.growth * (k * (k - 1) // 2)) // FS_PER_NS
            if now <= end:
                return k - 1, end
        k = self._reaching(now)
        return k - 1, self.start_ns + self.elapsed_fs(k) // FS_PER_NS

    def _reaching(self, now: int) -> int:
        """The first iteration, counted from 1, that ends at or after `now`; the last if none does."""
        target = (now - self.start_ns) * FS_PER_NS  # smallest k with elapsed_fs(k) >= target
        if self.growth:
            b = float(2 * self.first - self.growth)
            gap = target - self.carry
            # The root in floats, in the form that loses nothing by cancellation; the steps below make it exact.
            k = int(4 * gap / (sqrt(b * b + 8.0 * self.growth * gap) + b)) if gap > 0 else 0
        else:
            k = (target - self.carry) // self.first
        k = max(1, min(k, self.n))
        while k > 1 and self.elapsed_fs(k - 1) >= target:
            k -= 1
        while k < self.n and self.elapsed_fs(k) < target:
            k += 1
        return k
