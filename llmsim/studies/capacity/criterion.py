"""Criterion: all its conditions must hold in a run; and the judgement of one run, with what decided it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmsim.errors import ConfigError
from llmsim.metrics.saturation import OVERLOADED, may_last
from llmsim.studies.capacity.condition import DEFAULT, TARGETS, Condition, parse_condition

if TYPE_CHECKING:
    from llmsim.runs.results import Result

PROBABLY = "probably overloaded"
"""A run too short for a verdict that looks like an overload."""
HAVE_NO_SAMPLE = ("tpot", "itl")
"""A finished request of one token has none of these: without a single sample a limit on them holds."""


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on one run (or on one class of it): value and limit in ms, or shares for attainment.

    `use` is the part of the limit used up: value / limit, and for attainment the share missed / the share that may
    be missed. Above 1 it fails. None: there is no value, or nothing may be missed and something was.
    """

    condition: str
    name: str
    value: float | None
    limit: float | None
    holds: bool
    use: float | None
    unit: str = "ms"
    slo_class: str | None = None

    def words(self) -> str:
        """As `paying p99_itl 104 > 100 ms`, or `overloaded`."""
        who = f"{self.slo_class} " if self.slo_class else ""
        if self.limit is None:
            return who + self.name
        if self.value is None:
            return f"{who}{self.name} has no value ({'holds' if self.holds else 'no request finished'})"
        sign = "<" if self.value < self.limit else ">" if self.value > self.limit else "="
        unit = f" {self.unit}" if self.unit else ""
        return f"{who}{self.name} {self.value:.5g} {sign} {self.limit:.5g}{unit}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; what does not apply is left out."""
        known = {name: getattr(self, name) for name in ("condition", "name", "slo_class", "value", "limit", "unit")}
        return {k: v for k, v in known.items() if v not in (None, "")} | {"holds": self.holds, "use": self.use}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a run keeps the criterion, every check, and how much of the run the percentiles cannot see.

    `censored` of `sent` requests were not finished: they are in no percentile, and missed in attainment.
    `requests_needed`: about so many would tell whether the load can last, where `sent` did not.
    `calibrations` is what the summary says of how far each calibration was stretched.
    """

    passed: bool
    checks: tuple[Check, ...]
    censored: int
    sent: int
    saturation: str
    requests_needed: int | None = None
    calibrations: tuple[dict[str, Any], ...] = ()

    @property
    def binding(self) -> Check:
        """The check that failed by most, or that came nearest to failing."""
        return min(self.checks, key=lambda check: (check.holds, -math.inf if check.use is None else -check.use))

    def value(self, name: str) -> float | None:
        """The value of the check of this name (p99_itl) on the whole run; None if there is none."""
        own = (check.value for check in self.checks if check.name == name and check.slo_class is None)
        return next(own, None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "passed": self.passed,
            "binding": self.binding.words(),
            "checks": [check.as_dict() for check in self.checks],
            "sent": self.sent,
            "censored": self.censored,
            "saturation": self.saturation,
            **({} if self.requests_needed is None else {"requests_needed": self.requests_needed}),
        }


@dataclass(frozen=True, slots=True)
class Criterion:
    """All conditions must hold, and the run must not be overloaded unless `allow_overload`.

    An overloaded run's latencies grow with its length, so that a short one may keep any limit; a study that cuts
    its runs at a horizon and compares at that length (SLAI's) allows it. A run too short for a verdict passes only if
    it does not look like a load of 1.1 or more (`may_last`), and a report says that it was.
    """

    conditions: tuple[Condition, ...]
    allow_overload: bool = False

    @classmethod
    def parse(cls, lines: Sequence[str] = (), *, allow_overload: bool = False) -> Criterion:
        """Of lines in the grammar of `condition`; none: at least 99 % of the requests meet their limits."""
        return cls(tuple(parse_condition(line) for line in lines or (DEFAULT,)), allow_overload)

    @property
    def text(self) -> str:
        """The conditions in one line."""
        return ", ".join(condition.text for condition in self.conditions)

    @property
    def on_latency(self) -> bool:
        """Whether any condition is on a latency, which unfinished requests are not in."""
        return any(condition.is_latency for condition in self.conditions)

    def of(self, result: Result) -> Judgement:
        """The judgement of a run by its result: a measure for `sweep.run_many`."""
        return self.judge(result.summary)

    def judge(self, summary: dict[str, Any]) -> Judgement:
        """The judgement of a run by its summary. ConfigError if it has no limits that a condition needs."""
        checks = [check for condition in self.conditions for check in _checks(condition, summary)]
        saturation = str(summary["saturation"]["verdict"])
        if not (self.allow_overload or may_last(summary["saturation"])):
            name = OVERLOADED if saturation == OVERLOADED else PROBABLY
            checks.append(Check(name, name, None, None, False, None))
        return Judgement(
            all(check.holds for check in checks),
            tuple(checks),
            int(summary["requests"]["censored"]),
            int(summary["sent"]),
            saturation,
            (summary["saturation"].get("evidence") or {}).get("requests_needed"),
            tuple(summary.get("calibrations") or [summary["calibration"]]) if "calibration" in summary else (),
        )


def _checks(condition: Condition, summary: dict[str, Any]) -> Iterator[Check]:
    """One check, or one for each class the condition is on."""
    if not condition.is_latency:
        yield from _attainment(condition, summary)
    elif condition.of_classes:
        yield from _against_targets(condition, summary)
    else:
        value = summary[f"{condition.name}_ms"]
        assert condition.limit is not None  # only those of classes have none
        yield _latency(condition, value, condition.limit, summary["requests"]["measured"])


def _latency(
    condition: Condition, value: float | None, limit: float, finished: int, slo_class: str | None = None
) -> Check:
    if value is None:
        holds = finished > 0 and condition.metric in HAVE_NO_SAMPLE
        return Check(condition.text, condition.name, None, limit, holds, 0.0 if holds else None, slo_class=slo_class)
    holds = condition.holds(value, limit)
    return Check(condition.text, condition.name, value, limit, holds, value / limit, slo_class=slo_class)


def _classes(condition: Condition, summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    slo = summary["slo"]
    return {} if slo is None else slo["classes"]


def _against_targets(condition: Condition, summary: dict[str, Any]) -> Iterator[Check]:
    target, found = TARGETS[condition.metric], False
    for name, report in _classes(condition, summary).items():
        limit_s = report["targets_s"][target]
        if limit_s is not None:
            found = True
            value = report[f"{condition.name}_ms"]
            yield _latency(condition, value, limit_s * 1000, report["completed"], name)
    if not found:
        raise ConfigError(
            f"{condition.text} compares classes with their own {target} target, but no class of this workload has "
            f"one; give workload.classes with {target}_s, or a limit for all: {condition.name}<=VALUE"
        )


def _attainment(condition: Condition, summary: dict[str, Any]) -> Iterator[Check]:
    slo = summary["slo"]
    if slo is None:
        raise ConfigError(
            f"{condition.text} is of requests that meet their limits, but no request of this workload has any; give "
            "--slo ttft:500 or workload.classes with targets, or another condition, as --keep 'p99_ttft<=1s'"
        )
    named = slo["classes"].items() if condition.of_classes else [(None, slo)]
    assert condition.limit is not None
    for name, report in named:
        value = report["attainment"]
        if value is not None:  # None: no request of the class has a limit
            holds = condition.holds(value, condition.limit)
            use = _missed(value, condition.limit)
            yield Check(condition.text, condition.name, value, condition.limit, holds, use, "", name)


def _missed(value: float, limit: float) -> float | None:
    if limit == 1:
        return 1.0 if value == 1 else None
    return (1 - value) / (1 - limit)
