"""--tolerance: how large an error may be before validate fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmsim.errors import ConfigError, did_you_mean
from llmsim.validation.compare import METRICS, STATISTICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmsim.validation.compare import ErrorTable

JUDGED = ("ttft", "tpot", "e2el")
"""What a limit without a metric is for. A single gap (itl) is one iteration: name it to hold it to a limit."""
EXAMPLE = "'mean:5 p50:5 p99:10' or 'ttft.p99:10'"


class Limit(NamedTuple):
    """Largest allowed error of one statistic in percent; `metric` None stands for ttft, tpot and e2el."""

    metric: str | None
    statistic: str
    pct: float


def parse_tolerance(text: str) -> tuple[Limit, ...]:
    """The limits in `text`, separated by blanks or commas. ConfigError says what is wrong, with an example."""
    limits = []
    for item in text.replace(",", " ").split():
        name, colon, number = item.partition(":")
        metric, dot, statistic = name.rpartition(".")
        if not colon:
            raise ConfigError(f"tolerance {item!r} needs a colon and a number; write {EXAMPLE}")
        if statistic not in STATISTICS:
            raise ConfigError(f"tolerance {item!r}: no statistic {statistic!r}.{did_you_mean(statistic, STATISTICS)}")
        if dot and metric not in METRICS:
            raise ConfigError(f"tolerance {item!r}: no metric {metric!r}.{did_you_mean(metric, METRICS)}")
        try:
            pct = float(number.rstrip("%"))
        except ValueError:
            pct = -1.0
        if not 0 <= pct < float("inf"):
            raise ConfigError(f"tolerance {item!r} needs a percentage of at least 0; write {EXAMPLE}")
        limits.append(Limit(metric or None, statistic, pct))
    if not limits:
        raise ConfigError(f"tolerance is empty; write {EXAMPLE}")
    return tuple(limits)


def violations(table: ErrorTable, limits: Sequence[Limit]) -> list[str]:
    """One line for every error beyond its limit. A figure that only one run has is beyond any limit."""
    found = []
    for limit in limits:
        for metric in (limit.metric,) if limit.metric else JUDGED:
            line = next(x for x in table if (x.metric, x.statistic) == (metric, limit.statistic))
            name = f"{limit.statistic} {metric.upper()}"
            if line.error_pct is None:
                if (line.live or 0) != (line.simulated or 0):
                    found.append(f"{name}: {line.live} live but {line.simulated} simulated")
            elif abs(line.error_pct) > limit.pct:
                found.append(
                    f"{name} is off by {line.error_pct:+.1f} % ({line.simulated:.1f} simulated, {line.live:.1f} live), "
                    f"more than {limit.pct:g} %"
                )
    return found
