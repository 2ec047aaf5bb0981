"""How far a simulation is from a measured run of the same requests: request by request, and in the usual statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmsim.runs.results import Result

METRICS = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "p50", "p90", "p99")
PER_REQUEST = ("ttft", "tpot", "e2el")
WHOLE_RUN = (
    ("request_throughput", ("request_throughput",), "req/s"),
    ("output_throughput", ("output_throughput",), "tok/s"),
    ("duration", ("duration_s",), "s"),
    ("kv_mean_used", ("kv", "mean_used_blocks"), "blocks"),
    ("kv_peak_used", ("kv", "max_used_blocks"), "blocks"),
    ("preemptions", ("preemptions",), ""),
    ("finished", ("completed",), "requests"),
)
"""Figures of a whole run: name, place in the summary, unit."""


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """One figure of both runs. `error_pct` is simulated / live - 1 in percent, None where live is 0 or missing."""

    metric: str
    statistic: str
    live: float | None
    simulated: float | None
    error_pct: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """Every compared figure, and for each latency the median of the requests' own absolute errors in percent."""

    lines: tuple[ErrorLine, ...]
    per_request_pct: dict[str, float | None]
    requests: int

    def __iter__(self) -> Iterator[ErrorLine]:
        return iter(self.lines)

    def frame(self) -> pd.DataFrame:
        """Columns metric, statistic, live, simulated, error_pct, unit."""
        return pd.DataFrame([asdict(line) for line in self.lines])

    def error(self, metric: str, statistic: str) -> float | None:
        """The error of one figure in percent; ConfigError if it is not compared."""
        for line in self.lines:
            if (line.metric, line.statistic) == (metric, statistic):
                return line.error_pct
        raise ConfigError(f"{metric}.{statistic} is not compared; there are {', '.join(self.names())}")

    def names(self) -> list[str]:
        """`metric.statistic` of every line."""
        return [f"{line.metric}.{line.statistic}" for line in self.lines]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "requests": self.requests,
            "figures": [asdict(line) for line in self.lines],
            "median_absolute_error_of_requests_pct": self.per_request_pct,
        }


def compare(live: Result, simulated: Result) -> ErrorTable:
    """Compare two runs of the same requests.

    Raises ConfigError unless both hold the same requests (id, arrival, lengths): figures of different workloads would
    be compared otherwise.
    """
    check_same_requests(live.requests, simulated.requests)
    lines = [
        _line(metric, statistic, live.summary, simulated.summary, (f"{statistic}_{metric}_ms",), "ms")
        for metric in METRICS
        for statistic in STATISTICS
    ]
    lines += [_line(name, "run", live.summary, simulated.summary, path, unit) for name, path, unit in WHOLE_RUN]
    own = {metric: request_error_pct(live.requests, simulated.requests, metric) for metric in PER_REQUEST}
    return ErrorTable(tuple(lines), own, len(live.requests))


def check_same_requests(live: pd.DataFrame, simulated: pd.DataFrame) -> None:
    """Raise ConfigError, naming the first difference, unless both tables are of the same requests."""
    ours, theirs = set(simulated["id"]), set(live["id"])
    if ours != theirs:
        only = sorted(theirs - ours)[:3] or sorted(ours - theirs)[:3]
        where = "live" if theirs - ours else "simulated"
        raise ConfigError(
            f"the runs hold different requests: {len(theirs)} live and {len(ours)} simulated, of which "
            f"{len(theirs ^ ours)} are in one only (ids {', '.join(map(str, only))} in the {where} run)"
        )
    left, right = (table.set_index("id").sort_index() for table in (live, simulated))
    for column in ("arrival_ns", "prompt_tokens", "output_tokens"):
        other = np.flatnonzero(left[column].to_numpy() != right[column].to_numpy())
        if len(other):
            at = left.index[other[0]]
            raise ConfigError(
                f"request {at} differs between the runs: {column} is {left[column].loc[at]} live and "
                f"{right[column].loc[at]} simulated ({len(other)} such requests)"
            )


def paired(live: pd.DataFrame, simulated: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Columns id, live, simulated (seconds) of the requests that have this latency in both runs."""
    both = live[["id", f"{metric}_s"]].merge(simulated[["id", f"{metric}_s"]], on="id")
    both.columns = pd.Index(["id", "live", "simulated"])
    return both.dropna(ignore_index=True)


def request_error_pct(live: pd.DataFrame, simulated: pd.DataFrame, metric: str) -> float | None:
    """Median over requests of |simulated / live - 1| in percent; None if nobody has this latency."""
    both = paired(live, simulated, metric)
    both = both[both["live"] > 0]
    if both.empty:
        return None
    return round(float((both["simulated"] / both["live"] - 1).abs().median()) * 100, 3)


def _line(
    metric: str, statistic: str, live: dict[str, Any], simulated: dict[str, Any], path: tuple[str, ...], unit: str
) -> ErrorLine:
    a, b = _at(live, path), _at(simulated, path)
    error = None if a is None or b is None or not a else round((b / a - 1) * 100, 3)
    return ErrorLine(metric, statistic, a, b, error, unit)


def _at(summary: dict[str, Any], path: tuple[str, ...]) -> float | None:
    held: Any = summary
    for key in path:
        held = None if held is None else held.get(key)
    return None if held is None else float(held)
