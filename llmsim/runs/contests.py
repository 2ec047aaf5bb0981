"""Who is best and whether that counts: stars in a column, and a sentence a headline metric.

A difference counts from SAME on. Runs are compared with those that serve the same requests only, and overloaded ones
only among themselves, since their latencies grow with the run's length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmsim.runs.cluster_text import SECONDS_FROM_MS

SAME = 0.02
"""Differences below this share are called none: another seed of the workload moves the numbers as much."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A headline metric: its summary key, how to print it, and which direction wins."""

    title: str
    key: str
    unit: str
    lowest_wins: bool


CONTESTS = (
    Contest("Median TTFT", "median_ttft_ms", "ms", True),
    Contest("p99 ITL", "p99_itl_ms", "ms", True),
    Contest("Output throughput", "output_throughput", "tok/s", False),
)


def number(value: float | None) -> str:
    """About three digits: 0.42, 9.87, 98.7, 987, 98765; '-' for none."""
    if value is None:
        return "-"
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def in_words(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def stars(
    values: Sequence[float | None],
    *,
    lowest: bool = True,
    among: Sequence[bool] | None = None,
    groups: Sequence[int] | None = None,
) -> list[bool]:
    """Which values are the best of their group: within SAME of it, where another of those `among` is not.

    `groups` says which values are compared with each other (None: all).
    """
    best = [False] * len(values)
    for group in set(groups or [0]):
        field = [
            (at, value)
            for at, value in enumerate(values)
            if value is not None and (groups is None or groups[at] == group) and (among is None or among[at])
        ]
        if field:
            top = (min if lowest else max)(value for _, value in field)
            level = [at for at, value in field if gap(top, value) < SAME]
            for at in level if len(level) < len(field) else []:
                best[at] = True
    return best


def gap(best: float, other: float) -> float:
    """Distance of the best from another, as a share of the other."""
    return abs(other - best) / abs(other) if other else (0.0 if best == other else float("inf"))


def verdict(summary: Mapping[str, Any]) -> str:
    """What a summary says of the load; empty for nothing."""
    return str(summary.get("saturation", {}).get("verdict", ""))


def in_the_running(summaries: Sequence[Mapping[str, Any]], groups: Sequence[int] | None = None) -> list[bool]:
    """Who may be best: overloaded runs only in a group where all are."""
    steady = [verdict(summary) != "overloaded" for summary in summaries]
    of = groups or [0] * len(steady)
    some = {group for group, good in zip(of, steady, strict=True) if good}
    return [good or group not in some for group, good in zip(of, steady, strict=True)]


def contest_words(contest: Contest, labels: Sequence[str], summaries: Sequence[dict[str, Any]]) -> str:
    """One sentence: who wins the metric and by how much over the next and the last, or that nobody does."""
    running = in_the_running(summaries) if contest.lowest_wins else [True] * len(summaries)
    entries = [(s.get(contest.key), name) for s, name, may in zip(summaries, labels, running, strict=True) if may]
    field = sorted(
        ((value, name) for value, name in entries if value is not None),
        key=lambda entry: entry[0] if contest.lowest_wins else -entry[0],
    )
    if len(field) == 1 and not all(running):
        return f"{contest.title}: {field[0][1]} has {_amount(field[0][0], contest)}, the others are overloaded."
    if len(field) < 2:
        return f"{contest.title}: nothing to compare, fewer than two runs have one."
    (best, winner), (second, runner_up), (last, loser) = field[0], field[1], field[-1]
    if gap(best, last) < SAME:
        return f"{contest.title}: no difference ({_amount(best, contest)} to {_amount(last, contest)})."
    word = "below" if contest.lowest_wins else "above"
    over = f"{gap(best, last):.0%} {word} {loser} ({_amount(last, contest)})"
    if gap(best, second) < SAME:
        level = [name for value, name in field if gap(best, value) < SAME]
        return f"{contest.title}: {in_words(level)} are level at {_amount(best, contest)}, {over}."
    if len(field) > 2:
        over = f"{gap(best, second):.0%} {word} {runner_up} ({_amount(second, contest)}), {over}"
    return f"{contest.title}: {winner} wins with {_amount(best, contest)}, {over}."


def _amount(value: float, contest: Contest) -> str:
    if contest.unit == "ms" and value >= SECONDS_FROM_MS:
        return f"{number(value / 1000)} s"
    return f"{number(value)} {contest.unit}"
