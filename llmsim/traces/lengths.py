"""How long requests are: the specification and the synthetic distributions.

| kind | what it does |
|---|---|
| trace | rows of the trace in order, or shuffled (`WorkloadSpec.shuffle`); draws from a twin |
| resampled | rows of the trace drawn with replacement, prompt and output together |
| empirical | draws from the joint distribution: of a twin, or of the twin of a trace file made on the spot |
| synthetic | `prompt` and `output` drawn independently, each from its own distribution |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError
from llmsim.traces import checks

Sampler = Callable[[int, np.random.Generator], NDArray[np.int64]]
LENGTH_KINDS = ("trace", "resampled", "empirical", "synthetic")
_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fixed": (("value",), ()),
    "uniform": (("low", "high"), ()),
    "normal": (("mean", "std"), ("low", "high")),
    "lognormal": (("mean", "std"), ("low", "high")),
    "zipf": (("exponent", "high"), ("low",)),
}
DISTRIBUTION_KINDS = tuple(_OPTIONS)
_LONGEST = 10_000_000
"""Tokens; a zipf table beyond this would not fit in memory, and no context is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionSpec:
    """Distribution of one length in tokens; an option that its kind does not use is an error.

    fixed: `value`. uniform: whole numbers `low` to `high`, both included. normal, lognormal: `mean` and `std`
    of the tokens themselves (not of their logarithm), rounded, then clipped to `low` (default 1) and `high`
    (default none). zipf: the k-th shortest length from `low` (default 1) to `high` has a weight of
    k**-exponent.
    """

    kind: str = "fixed"
    value: int | None = None
    low: int | None = None
    high: int | None = None
    mean: float | None = None
    std: float | None = None
    exponent: float | None = None

    def __post_init__(self) -> None:
        checks.one_of("lengths kind of a distribution", self.kind, DISTRIBUTION_KINDS)
        names = [name for name in self.__dataclass_fields__ if name != "kind"]
        required, optional = _OPTIONS[self.kind]
        checks.needs(f"length distribution {self.kind!r}", {n: getattr(self, n) for n in names}, required, optional)
        for name in ("value", "low", "high"):
            checks.whole(f"length distribution {self.kind!r}: {name}", getattr(self, name), 1)
        checks.number(f"length distribution {self.kind!r}: mean", self.mean, above=0)
        checks.number(f"length distribution {self.kind!r}: std", self.std, least=0)
        checks.number(f"length distribution {self.kind!r}: exponent", self.exponent, least=0)
        low = self.low or 1
        if self.high is not None and not low <= self.high <= _LONGEST:
            raise ConfigError(
                f"length distribution {self.kind!r}: high must be {low} to {_LONGEST} but got {self.high}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthsSpec:
    """Where prompt and output lengths come from (see the table above).

    `prompt` and `output` belong to 'synthetic'.
    """

    kind: str = "trace"
    prompt: DistributionSpec | None = None
    output: DistributionSpec | None = None

    def __post_init__(self) -> None:
        checks.one_of("lengths.kind", self.kind, LENGTH_KINDS)
        required = ("prompt", "output") if self.kind == "synthetic" else ()
        checks.needs(f"lengths.kind {self.kind!r}", {"prompt": self.prompt, "output": self.output}, required)


def length_sampler(spec: DistributionSpec) -> Sampler:
    """A function of (n, generator) that draws n lengths in tokens, int64, shape (n,), at least 1.

    Draws of m and then of n are those of m + n at once.
    """
    if spec.kind == "zipf":
        return _zipf(spec)
    draw = _DRAWS[spec.kind]
    return lambda n, rng: draw(spec, n, rng)


def draw_lengths(spec: DistributionSpec, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lengths in tokens, int64, shape (n,), at least 1; the first m of them are those of m draws."""
    return length_sampler(spec)(n, rng)


def _fixed(spec: DistributionSpec, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """One value n times."""
    assert spec.value is not None
    return np.full(n, spec.value, dtype=np.int64)


def _uniform(spec: DistributionSpec, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """low to high, both included."""
    assert spec.low is not None
    assert spec.high is not None
    return rng.integers(spec.low, spec.high, size=n, endpoint=True, dtype=np.int64)


def _normal(spec: DistributionSpec, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Normal, clipped: at low mean and large std the clip at 1 raises the mean."""
    assert spec.mean is not None
    assert spec.std is not None
    return _rounded(spec.mean + spec.std * rng.standard_normal(n), spec)


def _lognormal(spec: DistributionSpec, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lognormal of the given mean and std of the tokens."""
    assert spec.mean is not None
    assert spec.std is not None
    variance = math.log1p((spec.std / spec.mean) ** 2)
    location = math.log(spec.mean) - variance / 2
    return _rounded(np.exp(location + math.sqrt(variance) * rng.standard_normal(n)), spec)


def _zipf(spec: DistributionSpec) -> Sampler:
    """Bounded Zipf by inverting its cumulative weights, which are summed once."""
    assert spec.exponent is not None
    assert spec.high is not None
    low = spec.low or 1
    weight = np.arange(1, spec.high - low + 2, dtype=np.float64) ** -spec.exponent
    cumulative = np.cumsum(weight) / weight.sum()

    def draw(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        rank = np.searchsorted(cumulative, rng.random(n), side="right")
        return low + np.minimum(rank, len(cumulative) - 1).astype(np.int64)

    return draw


def _rounded(tokens: NDArray[np.float64], spec: DistributionSpec) -> NDArray[np.int64]:
    """Whole tokens within the limits of the specification."""
    return np.clip(np.rint(tokens), spec.low or 1, spec.high or _LONGEST).astype(np.int64)


_DRAWS: dict[str, Callable[[DistributionSpec, int, np.random.Generator], NDArray[np.int64]]] = {
    "fixed": _fixed,
    "uniform": _uniform,
    "normal": _normal,
    "lognormal": _lognormal,
}
