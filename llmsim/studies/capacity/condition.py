"""Conditions on the summary of a run: `median_ttft<=500ms`, `class_p99_tbt`, `attainment>=0.99`.

| written | holds if |
|---|---|
| STAT_METRIC<=VALUE[ms\\|s] | that statistic of the whole run is within VALUE (milliseconds without a unit) |
| class_STAT_METRIC, or STAT_METRIC<=class | it is within its own target in every class that has one |
| attainment>=SHARE | that share of all requests sent met every limit on them |
| class_attainment>=SHARE | so in every class with targets |

STAT is mean, median or one of the summary's percentiles; METRIC is ttft, tpot, itl (also written tbt), e2el or
queue (arrival to first batch). `<` and `>` exclude the limit itself. Against a class's own target the summary holds
median and p99 of TTFT, and p99 of the gaps between tokens.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from llmsim.errors import ConfigError, did_you_mean
from llmsim.metrics.summary import PERCENTILES

METRICS = ("ttft", "tpot", "itl", "e2el", "queue")
ALIASES = {"tbt": "itl"}
STATISTICS = ("mean", "median", *(f"p{point:g}" for point in PERCENTILES))
CLASS_STATISTICS = {"ttft": ("median", "p99"), "itl": ("p99",)}
"""What the summary holds of each class against the class's target."""
TARGETS = {"ttft": "ttft", "itl": "tbt"}
"""Metric -> name of the class target that limits it."""
ATTAINMENT = "attainment"
DEFAULT = "attainment>=0.99"
"""What is kept if nothing else is asked for."""

_LINE = re.compile(r"([A-Za-z0-9_.]+)\s*(?:(<=|>=|<|>)\s*(.+))?")
_SHAPE = "a condition is STAT_METRIC<=VALUE, as median_ttft<=500ms, class_p99_tbt, or attainment>=0.99"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `limit` is in milliseconds, or a share for attainment; None: each class's own target."""

    text: str
    statistic: str
    metric: str
    limit: float | None
    strict: bool = False
    of_classes: bool = False

    @property
    def name(self) -> str:
        """Statistic and metric as the summary calls them: p99_itl, attainment."""
        return ATTAINMENT if self.metric == ATTAINMENT else f"{self.statistic}_{self.metric}"

    @property
    def is_latency(self) -> bool:
        """Whether it is on a latency, which only finished requests have, and not on attainment."""
        return self.metric != ATTAINMENT

    def holds(self, value: float, limit: float) -> bool:
        """Whether the value keeps the limit."""
        if value == limit:
            return not self.strict
        return value < limit if self.is_latency else value > limit


def parse_condition(text: str) -> Condition:
    """The condition that a line in the grammar above describes; ConfigError for any other line."""
    written = "".join(text.split())
    match = _LINE.fullmatch(written)
    if match is None:
        raise ConfigError(f"{_SHAPE}; got {text!r}")
    name, operator, value = match.groups()
    of_classes = name.startswith("class_")
    name = name.removeprefix("class_")
    if name == ATTAINMENT:
        limit = _share(text, operator, value)
        return Condition(written, "", ATTAINMENT, limit, operator == ">", of_classes)
    statistic, metric = _statistic(text, name)
    if operator in (">=", ">"):
        raise ConfigError(f"a latency is kept below a limit: write {name}<={value}; got {text!r}")
    if value == "class" or (of_classes and value is None):
        _check_class(text, statistic, metric)
        return Condition(written, statistic, metric, None, operator == "<", True)
    if value is None:
        raise ConfigError(f"{text!r} has no limit: write {name}<=VALUE (ms or s), or class_{name} for classes' targets")
    if of_classes:
        raise ConfigError(
            f"class_{name} compares each class with its own target and takes no limit, but got {text!r}; "
            f"write class_{name}, or {name}<={value} for the whole run"
        )
    return Condition(written, statistic, metric, _milliseconds(text, value), operator == "<")


def _statistic(text: str, name: str) -> tuple[str, str]:
    statistic, underscore, metric = name.partition("_")
    if not underscore:
        raise ConfigError(f"{_SHAPE}; got {text!r}.{did_you_mean(name, [ATTAINMENT, *_names()])}")
    metric = ALIASES.get(metric, metric)
    if metric not in METRICS:
        known = (*METRICS, *ALIASES)
        raise ConfigError(f"{text!r}: there is no metric {metric!r}.{did_you_mean(metric, known)}")
    if statistic not in STATISTICS:
        raise ConfigError(f"{text!r}: the summary has no statistic {statistic!r}; write one of {', '.join(STATISTICS)}")
    return statistic, metric


def _names() -> list[str]:
    return [f"{statistic}_{metric}" for statistic in STATISTICS for metric in METRICS]


def _check_class(text: str, statistic: str, metric: str) -> None:
    if statistic not in CLASS_STATISTICS.get(metric, ()):
        known = [f"class_{s}_{m}" for m, statistics in CLASS_STATISTICS.items() for s in statistics]
        raise ConfigError(f"{text!r}: of a class the summary holds {', '.join(known)} (itl is also written tbt)")


def _milliseconds(text: str, value: str) -> float:
    number, factor = value, 1.0
    if value.endswith("ms"):
        number = value[:-2]
    elif value.endswith("s"):
        number, factor = value[:-1], 1000.0
    limit = _number(number) * factor
    if not 0 < limit < math.inf:
        raise ConfigError(f"{text!r}: the limit must be a positive time, as 500ms or 0.5s, but got {value!r}")
    return limit


def _share(text: str, operator: str | None, value: str | None) -> float:
    if operator not in (">=", ">") or value is None:
        raise ConfigError(f"attainment is kept above a share: write {DEFAULT}; got {text!r}")
    share = _number(value[:-1]) / 100 if value.endswith("%") else _number(value)
    if not 0 < share <= 1:
        raise ConfigError(f"{text!r}: attainment is a share above 0 and at most 1 (or 99%), but got {value!r}")
    return share


def _number(text: str) -> float:
    """The number, NaN for anything else: it passes no range check."""
    try:
        return float(text)
    except ValueError:
        return math.nan
