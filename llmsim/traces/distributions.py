"""Distributions of one length in tokens: the specification, its text, and how far its limits move its mean.

| text | is |
|---|---|
| 1500 | always 1500 tokens |
| uniform:100-2000 | whole numbers from 100 to 2000, both included, each as likely |
| normal:1180,900 | mean and standard deviation in tokens; draws below 1 are clipped to it |
| lognormal:1500,0.8 | mean in tokens, and the standard deviation as a share of it: here 1200 tokens |
| KIND,OPTION=VALUE,... | any kind with its options: lognormal,mean=1500,std=1200,high=8000 |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import NoReturn

from llmsim.errors import ConfigError, did_you_mean
from llmsim.traces import checks
from llmsim.traces.optiontext import build

_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fixed": (("value",), ()),
    "uniform": (("low", "high"), ()),
    "normal": (("mean", "std"), ("low", "high")),
    "lognormal": (("mean", "std"), ("low", "high")),
    "zipf": (("exponent", "high"), ("low",)),
}
DISTRIBUTION_KINDS = tuple(_OPTIONS)
LONGEST = 10_000_000
"""Tokens; a zipf table beyond this would not fit in memory, and no context is longer."""
SHAPES = "a number of tokens as 1500, uniform:100-2000, normal:MEAN,STD, lognormal:MEAN,SPREAD (0.8: std is 0.8 x mean)"
TOLD_FROM = 0.02
"""A mean that moves by less than this share of it is not told: the mean of a thousand draws scatters by as much."""


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
        if self.high is not None and not low <= self.high <= LONGEST:
            raise ConfigError(
                f"length distribution {self.kind!r}: high must be {low} to {LONGEST} but got {self.high}"
            )

    def words(self) -> str:
        """As a reader needs it: '1,500 tokens', '1,500 ± 1,200 tokens (lognormal)'."""
        if self.kind == "fixed":
            return f"{self.value:,} tokens"
        if self.kind == "uniform":
            return f"{self.low:,} to {self.high:,} tokens"
        if self.kind == "zipf":
            return f"zipf {self.exponent:g}, {self.low or 1:,} to {self.high:,} tokens"
        limits = "".join(f", {name} {value:,}" for name, value in (("low", self.low), ("high", self.high)) if value)
        return f"{self.mean:,g} ± {self.std:,g} tokens ({self.kind}{limits})"


def distribution(given: str | int, name: str = "length") -> DistributionSpec:
    """The distribution that a number of tokens or a text (see the table above) stands for; `name` begins errors."""
    text = str(given).strip()
    if re.fullmatch(r"-?\d+", text):
        if int(text) < 1:
            raise ConfigError(f"{name} must be at least 1 token but got {text}")
        return DistributionSpec(kind="fixed", value=int(text))
    kind, mark, rest = re.match(r"([^:,]*)([:,]?)(.*)", text).groups()  # type: ignore[union-attr]  # it always matches
    if kind not in DISTRIBUTION_KINDS:
        raise ConfigError(f"{name} must be {SHAPES} but got {text!r}.{did_you_mean(kind, DISTRIBUTION_KINDS)}")
    if mark == ":" and "=" not in rest:
        if kind not in _SHORT:
            raise ConfigError(f"{name}: {kind} is written {kind},option=value,... but got {text!r}")
        return _SHORT[kind](name, text, rest)
    return build(DistributionSpec, {"kind": kind}, rest, text)


def _fixed(name: str, text: str, rest: str) -> DistributionSpec:
    return distribution(int(rest), name) if rest.isdigit() else _refuse(name, text, "fixed:1500")


def _uniform(name: str, text: str, rest: str) -> DistributionSpec:
    ends = re.fullmatch(r"(\d+)[-,](\d+)", rest)
    if ends is None:
        _refuse(name, text, "uniform:100-2000")
    low, high = map(int, ends.groups())
    if not 1 <= low <= high:
        raise ConfigError(f"{name}: {text!r} must go from 1 or more up to no less; write uniform:LOW-HIGH")
    return DistributionSpec(kind="uniform", low=low, high=high)


def _normal(name: str, text: str, rest: str) -> DistributionSpec:
    mean, std = _two(name, text, rest, "normal:1180,900 (mean and standard deviation in tokens)")
    if 0 < std < 1:
        raise ConfigError(
            f"{name}: the second number of normal is its standard deviation in tokens but got {std:g}; write "
            f"normal:{mean:g},{std * mean:g} for that share of the mean, or {mean:g} for one length"
        )
    return DistributionSpec(kind="normal", mean=mean, std=std)


def _lognormal(name: str, text: str, rest: str) -> DistributionSpec:
    mean, spread = _two(name, text, rest, "lognormal:1500,0.8 (mean in tokens, standard deviation / mean)")
    if spread > MOST_SPREAD:
        raise ConfigError(
            f"{name}: the second number of lognormal is its standard deviation as a share of the mean, at most "
            f"{MOST_SPREAD}, but got {spread:g}; write lognormal,mean={mean:g},std={spread:g} for tokens"
        )
    return DistributionSpec(kind="lognormal", mean=mean, std=spread * mean)


MOST_SPREAD = 20
"""Real traces spread by 0.5 to 3 of their mean; a number above this is meant in tokens."""
_SHORT: dict[str, Callable[[str, str, str], DistributionSpec]] = {
    "fixed": _fixed,
    "uniform": _uniform,
    "normal": _normal,
    "lognormal": _lognormal,
}


def _two(name: str, text: str, rest: str, shape: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in rest.split(","))
    except ValueError:
        _refuse(name, text, shape)
    if not (0 < first < math.inf and 0 <= second < math.inf):
        raise ConfigError(f"{name}: {text!r} needs a mean above 0 and a second number of at least 0; write {shape}")
    return first, second


def _refuse(name: str, text: str, shape: str) -> NoReturn:
    raise ConfigError(f"{name} must be written {shape} but got {text!r}")


def mean_moved(spec: DistributionSpec) -> str:
    """What the limits `low` and `high` make of the mean asked for, in words; empty if it stays within TOLD_FROM."""
    if spec.mean is None or spec.std is None or not spec.std:
        return ""
    found = clipped_mean(spec)
    if abs(found / spec.mean - 1) < TOLD_FROM:
        return ""
    ends = f"below {spec.low or 1}" + (f" and above {spec.high:,}" if spec.high else "")
    lognormal = "a lognormal of that mean has no tail below 1"
    instead = lognormal if spec.kind == "normal" else "give a mean that allows for it"
    return (
        f"{spec.kind} with mean {spec.mean:,g} and std {spec.std:,g} is clipped {ends}, so its mean is {found:,.0f} "
        f"({found / spec.mean - 1:+.1%}); {instead}"
    )


def clipped_mean(spec: DistributionSpec) -> float:
    """Mean in tokens of a normal or lognormal that is clipped to `low` and `high`, before rounding.

    E[min(max(X, l), h)], by the partial expectations of either law.
    """
    assert spec.mean is not None
    assert spec.std is not None
    low, high = float(spec.low or 1), float(spec.high or LONGEST)
    unit = NormalDist()
    if spec.kind == "normal":
        below, above = (low - spec.mean) / spec.std, (high - spec.mean) / spec.std
        inner = spec.mean * (unit.cdf(above) - unit.cdf(below)) + spec.std * (unit.pdf(below) - unit.pdf(above))
    else:
        sigma = math.sqrt(math.log1p((spec.std / spec.mean) ** 2))
        location = math.log(spec.mean) - sigma**2 / 2
        below, above = (math.log(low) - location) / sigma, (math.log(high) - location) / sigma
        inner = spec.mean * (unit.cdf(above - sigma) - unit.cdf(below - sigma))
    return low * unit.cdf(below) + high * (1 - unit.cdf(above)) + inner
