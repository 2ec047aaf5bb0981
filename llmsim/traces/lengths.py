"""How long requests are: the specification and the draws of synthetic lengths.

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
from llmsim.traces.distributions import LONGEST, DistributionSpec, distribution, mean_moved

Sampler = Callable[[int, np.random.Generator], NDArray[np.int64]]
LENGTH_KINDS = ("trace", "resampled", "empirical", "synthetic")


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthsSpec:
    """Where prompt and output lengths come from (see the table above).

    `prompt` and `output` belong to 'synthetic', which is the kind where they are given (else 'trace'). Each is a
    distribution, or its text: 1500, 'lognormal:1500,0.8', 'uniform:100-2000' (llmsim.traces.distributions).
    """

    kind: str | None = None
    prompt: DistributionSpec | int | str | None = None
    output: DistributionSpec | int | str | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("prompt", "output")}
        if self.kind is None:
            drawn = any(value is not None for value in given.values())
            object.__setattr__(self, "kind", "synthetic" if drawn else "trace")
        checks.one_of("lengths.kind", self.kind, LENGTH_KINDS)
        required = ("prompt", "output") if self.kind == "synthetic" else ()
        for name in required:
            if given[name] is None:
                raise ConfigError(
                    f"lengths.kind 'synthetic' needs {name!r}, which is not given: --{name}-tokens, or "
                    f"workload.lengths.{name}"
                )
        checks.needs(f"lengths.kind {self.kind!r}", given, required)
        for name, value in given.items():
            if isinstance(value, int | str):
                object.__setattr__(self, name, distribution(value, name))

    @property
    def drawn(self) -> dict[str, DistributionSpec]:
        """The distributions of 'synthetic' by name, prompt before output; empty for other kinds."""
        both = {"prompt": self.prompt, "output": self.output}
        return {name: value for name, value in both.items() if isinstance(value, DistributionSpec)}

    @property
    def notes(self) -> list[str]:
        """A sentence for each distribution whose limits move the mean that was asked for."""
        found = {name: mean_moved(spec) for name, spec in self.drawn.items()}
        return [f"{name} lengths: {words}" for name, words in found.items() if words]


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
    """Normal, clipped: at low mean and large std the clip at 1 raises the mean (distributions.mean_moved)."""
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
    return np.clip(np.rint(tokens), spec.low or 1, spec.high or LONGEST).astype(np.int64)


_DRAWS: dict[str, Callable[[DistributionSpec, int, np.random.Generator], NDArray[np.int64]]] = {
    "fixed": _fixed,
    "uniform": _uniform,
    "normal": _normal,
    "lognormal": _lognormal,
}
