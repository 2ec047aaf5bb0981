"""When requests arrive: the specification and the synthetic processes.

| kind | options | what it does |
|---|---|---|
| trace | rate | times of the trace; with `rate` stretched evenly so that their mean rate is that |
| poisson | rate, gap_cap | independent exponential gaps |
| gamma | rate, burstiness | gamma gaps, shape burstiness, scale 1/(rate*burstiness), as in vLLM |
| constant | rate | equal gaps |
| bursts | rate, burst_size | groups of burst_size at one instant; groups are Poisson at rate/burst_size |
| on_off | rate, on_s, off_s | Poisson while on, silent while off; `rate` is the mean over both |
| ramp | ramp | Poisson with a rate that is linear between points [seconds, rate]; the last rate holds on |
| all_at_once | | all at 0 |
| closed_loop | max_concurrency | all at 0; the cluster keeps max_concurrency in flight (next at a finish) |

Rates are requests per second; an infinite one means all at once. The first request arrives after the first
gap. The same seed draws the same random numbers at every rate, so runs at different rates differ in nothing
else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError
from llmsim.traces import checks
from llmsim.units import SECOND

Floats = NDArray[np.float64]

_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "trace": ((), ("rate",)),
    "poisson": (("rate",), ("gap_cap",)),
    "gamma": (("rate",), ("burstiness",)),
    "constant": (("rate",), ()),
    "bursts": (("rate", "burst_size"), ()),
    "on_off": (("rate", "on_s", "off_s"), ()),
    "ramp": (("ramp",), ()),
    "all_at_once": ((), ()),
    "closed_loop": (("max_concurrency",), ()),
}
ARRIVAL_KINDS = tuple(_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalsSpec:
    """An arrival process (see the table above); an option that its kind does not use is an error.

    `gap_cap` cuts every Poisson gap at that many mean gaps and is off by default. The SLAI study cuts at
    3/rate (its copy for Niyama at 8/rate), so its real rate is rate / (1 - exp(-gap_cap)) = 1.0524 * rate;
    set 3 to reproduce it.
    """

    kind: str = "trace"
    rate: float | None = None
    burstiness: float | None = None
    gap_cap: float | None = None
    burst_size: int | None = None
    on_s: float | None = None
    off_s: float | None = None
    ramp: tuple[tuple[float, float], ...] | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("arrivals.kind", self.kind, ARRIVAL_KINDS)
        names = [name for name in self.__dataclass_fields__ if name != "kind"]
        required, optional = _OPTIONS[self.kind]
        checks.needs(f"arrivals.kind {self.kind!r}", {n: getattr(self, n) for n in names}, required, optional)
        checks.number("arrivals.rate", self.rate, above=0, infinite=self.kind in ("poisson", "gamma", "constant"))
        for name in ("burstiness", "gap_cap", "on_s", "off_s"):
            checks.number(f"arrivals.{name}", getattr(self, name), above=0)
        checks.whole("arrivals.burst_size", self.burst_size, 1)
        checks.whole("arrivals.max_concurrency", self.max_concurrency, 1)
        if self.ramp is not None:
            object.__setattr__(self, "ramp", _checked_ramp(self.ramp))

    @property
    def mean_rate(self) -> float | None:
        """Requests per second that the process really has in the long run; None where it has no such rate."""
        if self.ramp is not None:
            return self.ramp[-1][1]
        if self.rate is None or self.gap_cap is None:
            return self.rate
        return self.rate / -math.expm1(-self.gap_cap)


def _checked_ramp(ramp: object) -> tuple[tuple[float, float], ...]:
    """The points as tuples.

    ConfigError unless times start at 0 and never fall, rates are >= 0 and the last is > 0.
    """
    what = "arrivals.ramp"
    if not isinstance(ramp, (list, tuple)) or not ramp:
        raise ConfigError(f"{what} must be a list of [seconds, rate] points but got {ramp!r}")
    points = []
    for point in ramp:
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise ConfigError(f"{what} must be a list of [seconds, rate] points but holds {point!r}")
        checks.number(f"{what} time", point[0], least=0)
        checks.number(f"{what} rate", point[1], least=0)
        points.append((float(point[0]), float(point[1])))
    times = [time for time, _ in points]
    if times[0] != 0 or times != sorted(times):
        raise ConfigError(f"{what} times must start at 0 and never fall but got {times}")
    if points[-1][1] <= 0:
        raise ConfigError(f"{what} must end at a rate > 0, which holds until the last request, but got {points[-1][1]}")
    return tuple(points)


def draw_arrivals(spec: ArrivalsSpec, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sorted arrival times in ns, shape (n,), of any kind but 'trace'.

    ConfigError if they pass the clock's end.
    """
    return seconds_to_ns(ArrivalProcess(spec, rng).next(n))


def seconds_to_ns(seconds: Floats) -> NDArray[np.int64]:
    """Nearest ns; ConfigError past 9.2e9 s, where an int64 of ns ends."""
    if len(seconds) and not seconds[-1] < 2**63 / SECOND:
        raise ConfigError(f"arrivals would last {seconds[-1]:.3g} s, past the clock's end at 9.2e9 s; raise the rate")
    return np.rint(seconds * SECOND).astype(np.int64)


class ArrivalProcess:
    """A process of any kind but 'trace' on its way: `next` continues where the call before it ended.

    Sums are continued, not begun anew, so that arrivals do not depend on how many are asked for at a time: not in
    the last bit.
    """

    def __init__(self, spec: ArrivalsSpec, rng: np.random.Generator) -> None:
        self.spec = spec
        self._rng = rng
        self._arrived = 0
        self._sum = 0.0
        self._latest = 0.0

    def next(self, n: int) -> Floats:
        """Seconds of the next n arrivals, sorted, shape (n,)."""
        if self.spec.kind in ("all_at_once", "closed_loop") or self.spec.rate == math.inf:
            return np.zeros(n)
        seconds = _PROCESSES[self.spec.kind](self, n)
        self._arrived += n
        return seconds

    @property
    def _rate(self) -> float:
        """The rate of a kind that must have one."""
        assert self.spec.rate is not None
        return self.spec.rate

    def _running_sum(self, gaps: Floats) -> Floats:
        """Cumulated gaps, begun at the sum of all before."""
        if len(gaps):
            gaps[0] += self._sum
            gaps = np.cumsum(gaps)
            self._sum = float(gaps[-1])
        return gaps

    def _poisson(self, n: int) -> Floats:
        """Gaps cut at gap_cap mean gaps if that is set."""
        gaps = self._rng.standard_exponential(n)
        if self.spec.gap_cap is not None:
            gaps = np.minimum(gaps, self.spec.gap_cap)
        return self._running_sum(gaps) / self._rate

    def _gamma(self, n: int) -> Floats:
        """Mean gap 1/rate, coefficient of variation 1/sqrt(burstiness)."""
        shape = 1.0 if self.spec.burstiness is None else self.spec.burstiness
        return self._running_sum(self._rng.standard_gamma(shape, n)) / (shape * self._rate)

    def _constant(self, n: int) -> Floats:
        """Draws nothing."""
        return np.arange(self._arrived + 1, self._arrived + n + 1) / self._rate

    def _bursts(self, n: int) -> Floats:
        """Each Poisson instant is repeated burst_size times."""
        size = self.spec.burst_size
        assert size is not None
        begun, inside = divmod(self._arrived, size)  # bursts that are over; arrivals of the one that is not
        drawn = begun + (inside > 0)
        current = [self._sum] if inside else []
        sums = self._running_sum(self._rng.standard_exponential(-(-(self._arrived + n) // size) - drawn))
        instants = np.concatenate((current, sums)) * (size / self._rate)
        return instants[(inside + np.arange(n)) // size]

    def _on_off(self, n: int) -> Floats:
        """A Poisson process on the time that is on, with the off times put in between."""
        spec = self.spec
        assert spec.on_s is not None
        assert spec.off_s is not None
        rate_on = self._rate * (spec.on_s + spec.off_s) / spec.on_s
        on_time = self._running_sum(self._rng.standard_exponential(n)) / rate_on
        return on_time + np.floor(on_time / spec.on_s) * spec.off_s

    def _ramp(self, n: int) -> Floats:
        """Unit Poisson points carried back through the integral of the rate (change of time)."""
        assert self.spec.ramp is not None
        time = np.array([point[0] for point in self.spec.ramp])
        rate = np.array([point[1] for point in self.spec.ramp])
        length = np.diff(time, append=math.inf)
        area = np.concatenate(([0.0], np.cumsum(length[:-1] * (rate[:-1] + rate[1:]) / 2)))
        slope = np.diff(rate, append=rate[-1]) / np.where(length > 0, length, 1.0)
        points = self._running_sum(self._rng.standard_exponential(n))
        # side='right' leaves out pieces of no area, so the rate of a chosen piece is not 0 all along.
        piece = np.searchsorted(area, points, side="right") - 1
        left = points - area[piece]
        # The root of rate*x + slope*x**2/2 = left, written so that a slope of 0 needs no case of its own.
        root = np.sqrt(np.maximum(rate[piece] ** 2 + 2 * slope[piece] * left, 0.0))
        seconds: Floats = time[piece] + 2 * left / (rate[piece] + root)
        seconds = np.maximum(np.maximum.accumulate(seconds), self._latest)
        self._latest = float(seconds[-1]) if n else self._latest
        return seconds


_PROCESSES: dict[str, Callable[[ArrivalProcess, int], Floats]] = {
    "poisson": ArrivalProcess._poisson,
    "gamma": ArrivalProcess._gamma,
    "constant": ArrivalProcess._constant,
    "bursts": ArrivalProcess._bursts,
    "on_off": ArrivalProcess._on_off,
    "ramp": ArrivalProcess._ramp,
}
