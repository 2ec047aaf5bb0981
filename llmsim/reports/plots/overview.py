"""The first screen of a report: who wins in words, the numbers side by side, and what differs between the runs.

The numbers are those that `llmsim.runs.text.comparison` prints, in the same units and with the same best ones marked.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmsim.reports.plots.page import Best, html_table
from llmsim.reports.plots.style import Style
from llmsim.runs.contests import in_the_running, in_words, number, stars
from llmsim.runs.contests import verdict as judged
from llmsim.runs.facts import config_of
from llmsim.runs.labels import differences as options_that_differ
from llmsim.runs.text import contest_lines, latency_columns, percent, points_of, same_requests, served_rate

if TYPE_CHECKING:
    from llmsim.runs.results import Result

Summaries = Sequence[dict[str, Any]]
Looks = Mapping[str, Style]
COLUMNS = 12
"""Numbers beside a name that the page is wide enough for."""


def verdicts(names: Sequence[str], results: Sequence[Result]) -> list[str]:
    """How many requests were within the SLO, and what the load was, run by run in a sentence each."""
    found = []
    shares = [(name, (r.summary.get("slo") or {}).get("attainment")) for name, r in zip(names, results, strict=True)]
    known = sorted(((name, share) for name, share in shares if share is not None), key=lambda pair: -pair[1])
    alone = len(results) == 1
    if known:
        if len(known) == len(results) and len({share for _, share in known}) == 1:
            alone, known = True, known[:1]
        told = [f"{100 * share:.3g} %" + ("" if alone else f" with {name}") for name, share in known]
        found.append(f"Requests within the SLO: {', '.join(told)}.")
    loads: dict[str, list[str]] = {}
    for name, result in zip(names, results, strict=True):
        if said := judged(result.summary):
            loads.setdefault(said, []).append(name)
    if loads:
        whom = {said: "" if len(loads) == 1 else f" ({in_words(of)})" for said, of in loads.items()}
        found.append(f"Load: {', '.join(said + whom[said] for said in loads)}.")
    return found


def words(names: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Who wins each headline metric and by how much, and which runs cannot be compared; one sentence each."""
    groups = same_requests(results)
    lines = list(contest_lines(names, results, groups))
    if len(set(groups)) > 1:
        lines.append("These runs did not serve the same requests: arrivals, lengths or targets differ.")
    for name, result in zip(names, results, strict=True):
        sent = result.summary.get("sent", 0)
        if left := sent - result.summary.get("completed", 0):
            lines.append(f"{name} left {left:,} of {sent:,} requests unanswered; they are in no latency.")
    return lines


def swatch(name: str, looks: Looks) -> str:
    """The run's name behind a square of its colour; it may break after a comma and before a value."""
    shown = html.escape(name).replace(",", ",<wbr>").replace("=", "=<wbr>")
    return f'<span class="run"><span class="swatch" style="background:{looks[name].color}"></span>{shown}</span>'


def marked(values: Sequence[float | None], best: Sequence[bool]) -> list[str]:
    """Values as text, the best being `Best`."""
    return [Best(number(value)) if star else number(value) for value, star in zip(values, best, strict=True)]


def latency_table(names: Sequence[str], summaries: Summaries, looks: Looks, groups: Sequence[int] | None = None) -> str:
    """Percentiles of the four latencies, a row a run; `groups`: who is compared with whom (None: all).

    Several tables below each other where so many percentiles were asked for that one would be cut off.
    """
    points, running = list(points_of(summaries)), in_the_running(summaries, groups)
    metrics = list(latency_columns(summaries, points))
    fit = max(1, COLUMNS // len(points))
    tables = []
    for first in range(0, len(metrics), fit):
        part, columns = metrics[first : first + fit], []
        for _, _, values in part:
            columns += [marked(column, stars(column, among=running, groups=groups)) for column in values]
        rows = [[swatch(name, looks), *(column[i] for column in columns)] for i, name in enumerate(names)]
        heads = [("", 1), *((f"{metric.upper()} ({unit})", len(points)) for metric, unit, _ in part)]
        tables.append(html_table(["scheduler", *points * len(part)], rows, groups=heads))
    return "\n".join(tables)


def load_table(names: Sequence[str], summaries: Summaries, looks: Looks, groups: Sequence[int] | None = None) -> str:
    """Throughput, KV use, preemptions, requests without an answer, attainment and verdict, a row a run."""
    kv = [summary.get("kv", {}) for summary in summaries]

    def highest(values: Sequence[float | None]) -> list[str]:
        return marked(values, stars(values, lowest=False, groups=groups))

    columns = {
        "requests served/s": highest([served_rate(s) for s in summaries]),
        "output tokens/s": highest([s.get("output_throughput") for s in summaries]),
        "KV mean %": [number(percent(k.get("mean_share"))) for k in kv],
        "KV max %": [number(percent(k.get("max_share"))) for k in kv],
        "preemptions": [f"{s['preemptions']:,}" if "preemptions" in s else "-" for s in summaries],
        "unanswered": [f"{s.get('sent', 0) - s.get('completed', 0):,}" for s in summaries],
    }
    if any(s.get("slo") for s in summaries):
        columns["SLO met %"] = highest([percent((s.get("slo") or {}).get("attainment")) for s in summaries])
    columns["load"] = [verdict(summary) for summary in summaries]
    rows = [[swatch(name, looks), *(column[i] for column in columns.values())] for i, name in enumerate(names)]
    return html_table(["scheduler", *columns], rows)


def verdict(summary: Mapping[str, Any]) -> str:
    """The saturation verdict on its colour; '-' if there is none."""
    said = judged(summary)
    return f'<span class="verdict {html.escape(said.split()[0])}">{html.escape(said)}</span>' if said else "-"


def differences(results: Sequence[Result]) -> dict[str, list[str]]:
    """Options whose value is not the same in all runs, by dotted name; '-' where a run does not have one."""
    return options_that_differ([config_of(result) for result in results])


def differences_table(names: Sequence[str], results: Sequence[Result], looks: Looks) -> str:
    """Those options, a row a run; empty if the runs' descriptions are the same."""
    found = differences(results)
    if not found:
        return ""
    rows = [[swatch(name, looks), *(html.escape(v[i]) for v in found.values())] for i, name in enumerate(names)]
    return html_table(["run", *map(html.escape, found)], rows, text=range(1, len(found) + 1))
