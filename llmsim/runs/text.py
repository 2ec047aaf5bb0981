"""Results for people: side by side in a terminal (100 columns, plain text, the same when piped) and as HTML.

It reads labels and summaries only. A star marks the best of a column; a sentence a metric says which policy
wins and by how much, or that none does.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from llmsim.runs.cluster_text import SECONDS_FROM_MS, fleet_lines

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline

METRICS = ("ttft", "tpot", "itl", "e2el")
POINTS = ("p50", "p90", "p99")
WIDTH = 100
NAME_WIDTH = 19
CELL = 6
COUNTED = ("request_throughput", "output_throughput", "request_goodput", "completed", "sent", "preemptions")
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


def comparison(results: Sequence[Headline]) -> str:
    """Several results of one workload as text of 100 columns: latencies, load, and who wins."""
    if not results:
        return "no results"
    names, legend = _names([result.label for result in results])
    summaries = [result.summary for result in results]
    parts = [_latency_block(names, summaries), _load_block(names, summaries), legend]
    parts.append("\n".join(_verdict_words(names, summaries)))
    return "\n\n".join(part for part in parts if part)


def _names(labels: Sequence[str]) -> tuple[list[str], str]:
    """Labels that fit the first column and differ, and a legend of those that had to be cut."""
    if max(map(len, labels)) <= NAME_WIDTH and len(set(labels)) == len(labels):
        return list(labels), ""
    short, legend = [], []
    for i, label in enumerate(labels, 1):
        mark = f"[{i}] "
        room = NAME_WIDTH - len(mark)
        head = label if len(label) <= room else label.split(",")[0]  # the policy without its options
        short.append(mark + (head if len(head) <= room else head[: room - 2] + ".."))
        legend.append(mark + label)
    return short, "\n".join(legend)


def number(value: float | None) -> str:
    """About three digits: 0.42, 9.87, 98.7, 987, 98765; '-' for none."""
    if value is None:
        return "-"
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def with_best(
    values: Sequence[float | None], *, lowest: bool = True, among: Sequence[bool] | None = None
) -> list[tuple[str, bool]]:
    """Each value as text, and whether it is the best as printed of those `among`; none is if all print the same."""
    texts = [number(value) for value in values]
    counts = among or [True] * len(values)
    known = [value for value, counted in zip(values, counts, strict=True) if counted and value is not None]
    best = number(min(known) if lowest else max(known)) if known else "-"
    tell = len({text for text in texts if text != "-"}) > 1
    return [(text, tell and counted and text == best) for text, counted in zip(texts, counts, strict=True)]


def in_the_running(summaries: Sequence[dict[str, Any]]) -> list[bool]:
    """Who may be best: overloaded runs only among themselves, since their latencies grow with the run's length."""
    steady = [_verdict(summary) != "overloaded" for summary in summaries]
    return steady if any(steady) else [True] * len(steady)


def latency_columns(summaries: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, list[list[float | None]]]]:
    """Metric, unit and one column a point for each latency; in seconds where a value is large, else in ms."""
    for metric in METRICS:
        values = [[summary.get(f"{point}_{metric}_ms") for summary in summaries] for point in POINTS]
        slow = any(value is not None and value >= SECONDS_FROM_MS for column in values for value in column)
        unit, scale = ("s", 1e-3) if slow else ("ms", 1.0)
        # No time between tokens at all is an answer in one piece: no latency of tokens.
        least = 0.0 if metric in ("tpot", "itl") else -1.0
        yield metric, unit, [[None if v is None or v <= least else v * scale for v in column] for column in values]


def _starred(values: Sequence[float | None], among: Sequence[bool], *, lowest: bool = True) -> list[str]:
    """Values as text of one width, a star behind the best of those `among`."""
    return [text + ("*" if best else " ") for text, best in with_best(values, lowest=lowest, among=among)]


def _latency_block(names: Sequence[str], summaries: Sequence[dict[str, Any]]) -> str:
    groups, heads, columns = "", "", []
    for metric, unit, values in latency_columns(summaries):
        title = f" {metric.upper()} {unit} "
        groups += "  " + title.center(CELL * len(POINTS), "-")
        heads += "  " + "".join(f"{point:>{CELL - 1}} " for point in POINTS)
        columns += [_starred(column, in_the_running(summaries)) for column in values]
    lines = [" " * NAME_WIDTH + groups, "scheduler".ljust(NAME_WIDTH) + heads]
    for row, name in enumerate(names):
        cells = [column[row].rjust(CELL) for column in columns]
        spans = ["".join(cells[i : i + len(POINTS)]) for i in range(0, len(cells), len(POINTS))]
        lines.append(name.ljust(NAME_WIDTH) + "  " + "  ".join(spans))
    return "\n".join(line.rstrip() for line in lines)


def _share(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _load_block(names: Sequence[str], summaries: Sequence[dict[str, Any]]) -> str:
    """Throughput, KV use, preemptions, unanswered requests, attainment and the saturation verdict."""
    kv = [summary.get("kv", {}) for summary in summaries]
    every = [True] * len(summaries)
    columns = {
        "req/s": _starred([s.get("request_throughput") for s in summaries], every, lowest=False),
        "out tok/s": _starred([s.get("output_throughput") for s in summaries], every, lowest=False),
        "KV avg%": [number(_share(k.get("mean_share"))) for k in kv],
        "KV max%": [number(_share(k.get("max_share"))) for k in kv],
        "preempt": [str(s.get("preemptions", "-")) for s in summaries],
        "lost": [str(s.get("sent", 0) - s.get("completed", 0)) for s in summaries],
    }
    if any(s.get("slo") for s in summaries):
        met = [(s.get("slo") or {}).get("attainment") for s in summaries]
        columns["SLO%"] = _starred([_share(value) for value in met], every, lowest=False)
    widths = {title: max(len(title), *map(len, cells)) for title, cells in columns.items()}
    lines = ["scheduler".ljust(NAME_WIDTH) + "".join(f"  {t:>{w}}" for t, w in widths.items()) + "  load"]
    for row, name in enumerate(names):
        cells = "".join(f"  {columns[title][row]:>{width}}" for title, width in widths.items())
        verdict = summaries[row].get("saturation", {}).get("verdict", "-")
        lines.append(name.ljust(NAME_WIDTH) + cells + f"  {verdict}")
    return "\n".join(lines)


def _verdict_words(labels: Sequence[str], summaries: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    if len(labels) > 1:
        lines += [contest_words(contest, labels, summaries) for contest in CONTESTS]
        sent = summaries[0].get("sent", 0)
        lines.append(f"One run each of {sent} requests; differences below {SAME:.0%} count as none.")
    for verdict, means in (
        ("overloaded", "latencies grow with the length of the run, so compare at a lower rate"),
        ("near saturation", "latencies may change much with the seed and the length of the run"),
    ):
        hit = [name for name, s in zip(labels, summaries, strict=True) if _verdict(s) == verdict]
        if hit:
            lines.append(f"{verdict.capitalize()}: {', '.join(hit)}; {means}.")
    needed = [(s.get("saturation", {}).get("evidence") or {}).get("requests_needed") for s in summaries]
    if few := [f"{name} (about {n:,})" for name, n in zip(labels, needed, strict=True) if n]:
        lines.append(f"Undetermined: {', '.join(few)} requests would tell whether latencies grow with their number.")
    for name, summary in zip(labels, summaries, strict=True):
        classes = (summary.get("slo") or {}).get("classes") or {}
        if len(classes) > 1:
            shares = (f"{key} {number(_share(found['attainment']))}%" for key, found in classes.items())
            lines.append(f"SLO by class, {name}: {', '.join(shares)}.")
        left = summary.get("sent", 0) - summary.get("completed", 0)
        if left:
            lines.append(f"{name} left {left} of {summary['sent']} requests unanswered; they are in no latency.")
    return [part for line in (*lines, *fleet_lines(labels, summaries)) for part in _wrapped(line)]


def _verdict(summary: dict[str, Any]) -> str:
    return str(summary.get("saturation", {}).get("verdict", ""))


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


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
    if _gap(best, last) < SAME:
        return f"{contest.title}: no difference ({_amount(best, contest)} to {_amount(last, contest)})."
    word = "below" if contest.lowest_wins else "above"
    over = f"{_gap(best, last):.0%} {word} {loser} ({_amount(last, contest)})"
    if _gap(best, second) < SAME:
        level = [name for value, name in field if _gap(best, value) < SAME]
        return f"{contest.title}: {' and '.join(level)} are level at {_amount(best, contest)}, {over}."
    if len(field) > 2:
        over = f"{_gap(best, second):.0%} {word} {runner_up} ({_amount(second, contest)}), {over}"
    return f"{contest.title}: {winner} wins with {_amount(best, contest)}, {over}."


def _gap(best: float, other: float) -> float:
    """Distance of the best from another, as a share of the other."""
    return abs(other - best) / abs(other) if other else (0.0 if best == other else float("inf"))


def _amount(value: float, contest: Contest) -> str:
    if contest.unit == "ms" and value >= SECONDS_FROM_MS:
        return f"{number(value / 1000)} s"
    return f"{number(value)} {contest.unit}"


def comparison_frame(results: Sequence[Headline]) -> pd.DataFrame:
    """Headline numbers of several results, one row each, indexed by label; units are in the column names."""
    rows = []
    for result in results:
        summary = result.summary
        keys = [f"{point}_{metric}_ms" for metric in METRICS for point in POINTS]
        row = {key: summary.get(key) for key in (*keys, *COUNTED)}
        row["kv_mean_share"] = summary.get("kv", {}).get("mean_share")
        row["kv_max_share"] = summary.get("kv", {}).get("max_share")
        row["verdict"] = _verdict(summary)
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index([result.label for result in results], name="scheduler"))


def result_html(result: Headline) -> str:
    """One result as a compact HTML table for notebooks."""
    summary = result.summary
    head = "".join(f"<th>{point}</th>" for point in ("mean", *POINTS))
    body = ""
    for metric in METRICS:
        cells = [summary.get(f"{point}_{metric}_ms") for point in ("mean", *POINTS)]
        body += f"<tr><th>{metric.upper()} (ms)</th>"
        body += "".join(f"<td>{number(value)}</td>" for value in cells) + "</tr>"
    kv = summary.get("kv", {})
    facts = [
        f"{summary.get('completed', 0)} of {summary.get('sent', 0)} requests answered",
        f"{number(summary.get('request_throughput'))} req/s",
        f"{number(summary.get('output_throughput'))} output tokens/s",
        f"KV {number(_share(kv.get('mean_share')))} % mean, {number(_share(kv.get('max_share')))} % max",
        f"{summary.get('preemptions', 0)} preemptions",
        _verdict(summary),
    ]
    title = html.escape(f"{result.name}: {result.label}" if result.label != result.name else result.name)
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in result.warnings())
    return (
        f"<div><strong>{title}</strong>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{html.escape(' · '.join(fact for fact in facts if fact))}</p>"
        + (f"<ul>{lines}</ul>" if lines else "")
        + "</div>"
    )
