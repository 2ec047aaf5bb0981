"""Searches as generators: they yield where to probe, are sent the probe, and return a bracket.

They know nothing of simulations, so any oracle can drive them: `drive` one alone, `runs` many at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.studies.capacity.criterion import Judgement

REACH = 1024
"""A rate search goes this factor up or down from its start before it gives up."""
CHECKS = (0.9, 1.1)
"""Once the bracket is found: a probe at this share of its lower end, and one at this multiple of its upper."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One evaluated candidate: a rate (requests per second) or a number of replicas.

    `delay_s` is the median scheduling delay, which the OSDI rule steers by; None where nothing was scheduled.
    """

    at: float
    passed: bool
    delay_s: float | None = None
    judgement: Judgement | None = None


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where the criterion begins to fail: it is kept at `keeps` and not at `fails`.

    A rate: `keeps` None means none down to `fails`, `fails` None means at least `keeps`. Replicas: `keeps` None
    means none up to `fails`, `fails` None that one replica is enough.
    """

    keeps: float | None
    fails: float | None


Search = Generator[float, Probe, Bracket]


@dataclass(frozen=True, slots=True)
class Found:
    """A finished search: its bracket and its probes in their order."""

    bracket: Bracket
    probes: tuple[Probe, ...]

    def at(self, value: float | None) -> Probe | None:
        """The probe of this value, if there was one."""
        return next((probe for probe in self.probes if probe.at == value), None)


def drive(search: Search, oracle: Callable[[float], Probe]) -> Found:
    """Run one search to its end with an oracle."""
    probes: list[Probe] = []
    at = next(search)
    while True:
        probes.append(oracle(at))
        try:
            at = search.send(probes[-1])
        except StopIteration as end:
            return Found(end.value, tuple(probes))


def rate_search(start: float, precision: float = 0.01, *, check: bool = True) -> Search:
    """The highest rate that passes, to `precision` (share of it): doubling or halving, then bisection.

    Bisection alone never sees a pass above a fail, so with `check` a probe on either side of the bracket (CHECKS)
    shows whether the answer changes more than once; these probes leave the bracket as it is.
    """
    if not 0 < start < math.inf:
        raise ConfigError(f"start must be a rate above 0 but got {start}")
    if not 0 < precision < 1:
        raise ConfigError(f"precision is a share of the rate, above 0 and below 1, as 0.01, but got {precision}")
    return _rate_search(start, precision, check)


def _rate_search(start: float, precision: float, check: bool) -> Search:
    rising = passed = (yield start).passed
    at = last = start
    while passed == rising:
        if max(at / start, start / at) >= REACH:
            return Bracket(at, None) if rising else Bracket(None, at)
        last, at = at, (at * 2 if rising else at / 2)
        passed = (yield at).passed
    keeps, fails = (last, at) if rising else (at, last)
    while fails - keeps > precision * keeps:
        middle = (keeps + fails) / 2
        if (yield middle).passed:
            keeps = middle
        else:
            fails = middle
    if check:
        yield keeps * CHECKS[0]
        yield fails * CHECKS[1]
    return Bracket(keeps, fails)


def replica_search(most: int, start: int = 1) -> Search:
    """The fewest replicas that pass, at most `most`: doubling from `start`, then bisection over whole numbers."""
    if not 1 <= start <= most:
        raise ConfigError(f"start must be from 1 to {most} replicas (--max-replicas) but got {start}")
    return _replica_search(most, start)


def _replica_search(most: int, start: int) -> Search:
    low, high = 0, start
    while not (yield high).passed:
        if high == most:
            return Bracket(None, most)
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if (yield middle).passed:
            high = middle
        else:
            low = middle
    return Bracket(high, low or None)


def inversions(probes: Sequence[Probe], *, harder_upwards: bool = True) -> int:
    """Probes that contradict one border between pass and fail.

    With `harder_upwards` (rates) passes above the lowest fail; else (replicas) fails above the lowest pass.
    """
    turned = [probe.at for probe in probes if probe.passed != harder_upwards]
    border = min(turned, default=math.inf)
    return sum(probe.passed == harder_upwards and probe.at > border for probe in probes)
