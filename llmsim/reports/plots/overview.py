"""The first screen of a report: who wins in words, the numbers side by side, and what differs between the runs.

The numbers are those that `llmsim.runs.text.comparison` prints, in the same units and with the same best ones marked.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmsim.reports.plots.data import config_of
from llmsim.reports.plots.page import Best, html_table
from llmsim.reports.plots.style import Style
from llmsim.runs.text import (
    CONTESTS,
    METRICS,
    POINTS,
    SAME,
    contest_words,
    in_the_running,
    latency_columns,
    number,
    with_best,
)

if TYPE_CHECKING:
    from llmsim.runs.results import Result

Summaries = Sequence[dict[str, Any]]
Looks = Mapping[str, Style]


def words(names: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Who wins each headline metric and by how much, and which runs cannot be compared; one sentence each."""
    summaries = [result.summary for result in results]
    lines = []
    if len(results) > 1:
        lines = [contest_words(contest, names, summaries) for contest in CONTESTS]
        lines.append(f"One run each; differences below {SAME:.0%} count as none.")
        if len({repr(_workload(result)) for result in results}) > 1:
            lines.append("These runs did not serve the same requests: arrivals, lengths or targets differ.")
    for name, summary in zip(names, summaries, strict=True):
        sent = summary.get("sent", 0)
        if left := sent - summary.get("completed", 0):
            lines.append(f"{name} left {left:,} of {sent:,} requests unanswered; they are in no latency.")
    return lines


def _workload(result: Result) -> tuple[Any, Any]:
    """What decides the requests of a run."""
    described = result.manifest.get("workload") or {}
    return described.get("spec"), result.manifest.get("seed")


def swatch(name: str, looks: Looks) -> str:
    """The run's name behind a square of its colour; it may break after a comma and before a value."""
    shown = html.escape(name).replace(",", ",<wbr>").replace("=", "=<wbr>")
    return f'<span class="run"><span class="swatch" style="background:{looks[name].color}"></span>{shown}</span>'


def marked(
    values: Sequence[float | None], *, lowest: bool = True, among: Sequence[bool] | None = None
) -> list[str]:
    """Values as text, the best as printed (of those `among`) being `Best`; none is, if all print the same."""
    return [Best(text) if best else text for text, best in with_best(values, lowest=lowest, among=among)]


def latency_table(names: Sequence[str], summaries: Summaries, looks: Looks) -> str:
    """Percentiles of the four latencies, a row a run."""
    columns, groups = [], [("", 1)]
    for metric, unit, values in latency_columns(summaries):
        groups.append((f"{metric.upper()} ({unit})", len(POINTS)))
        columns += [marked(column, among=in_the_running(summaries)) for column in values]
    rows = [[swatch(name, looks), *(column[i] for column in columns)] for i, name in enumerate(names)]
    return html_table(["scheduler", *POINTS * len(METRICS)], rows, groups=groups)


def load_table(names: Sequence[str], summaries: Summaries, looks: Looks) -> str:
    """Throughput, KV use, preemptions, requests without an answer, attainment and verdict, a row a run."""
    kv = [summary.get("kv", {}) for summary in summaries]
    columns = {
        "requests/s": marked([s.get("request_throughput") for s in summaries], lowest=False),
        "output tokens/s": marked([s.get("output_throughput") for s in summaries], lowest=False),
        "KV mean %": [number(_percent(k.get("mean_share"))) for k in kv],
        "KV max %": [number(_percent(k.get("max_share"))) for k in kv],
        "preemptions": [f"{s['preemptions']:,}" if "preemptions" in s else "-" for s in summaries],
        "unanswered": [f"{s.get('sent', 0) - s.get('completed', 0):,}" for s in summaries],
    }
    if any(s.get("slo") for s in summaries):
        columns["SLO met %"] = marked(
            [_percent((s.get("slo") or {}).get("attainment")) for s in summaries], lowest=False
        )
    columns["load"] = [verdict(summary) for summary in summaries]
    rows = [[swatch(name, looks), *(column[i] for column in columns.values())] for i, name in enumerate(names)]
    return html_table(["scheduler", *columns], rows)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def verdict(summary: Mapping[str, Any]) -> str:
    """The saturation verdict on its colour; '-' if there is none."""
    said = str(summary.get("saturation", {}).get("verdict", ""))
    return f'<span class="verdict {html.escape(said.split()[0])}">{html.escape(said)}</span>' if said else "-"


def differences(results: Sequence[Result]) -> dict[str, list[str]]:
    """Options whose value is not the same in all runs, by dotted name; '-' where a run does not have one."""
    flat = [_flat(config_of(result)) for result in results]
    keys = dict.fromkeys(key for config in flat for key in config)
    values = {key: [config.get(key, "-") for config in flat] for key in keys}
    return {key: of_runs for key, of_runs in values.items() if len(set(of_runs)) > 1}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif prefix == "" and key == "scheduler":
            found["scheduler.name"] = str(value)  # `scheduler: slai` and `scheduler: {name: slai}` are the same
        else:
            found[prefix + str(key)] = str(value)
    return found


def differences_table(names: Sequence[str], results: Sequence[Result], looks: Looks) -> str:
    """Those options, a row a run; empty if the runs' descriptions are the same."""
    found = differences(results)
    if not found:
        return ""
    rows = [[swatch(name, looks), *(html.escape(v[i]) for v in found.values())] for i, name in enumerate(names)]
    return html_table(["run", *map(html.escape, found)], rows, text=range(1, len(found) + 1))
