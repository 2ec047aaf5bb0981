"""Results as a frame and as HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from llmsim.runs.contests import number, verdict
from llmsim.runs.facts import setting
from llmsim.runs.text import METRICS, POINTS, percent

if TYPE_CHECKING:
    from llmsim.runs.headline import Headline

COUNTED = ("request_throughput", "output_throughput", "request_goodput", "completed", "sent", "preemptions")


def comparison_frame(results: Sequence[Headline]) -> pd.DataFrame:
    """Headline numbers of several results, one row each, indexed by label; units are in the column names."""
    rows = []
    for result in results:
        summary = result.summary
        keys = [f"{point}_{metric}_ms" for metric in METRICS for point in POINTS]
        row = {key: summary.get(key) for key in (*keys, *COUNTED)}
        row["kv_mean_share"] = summary.get("kv", {}).get("mean_share")
        row["kv_max_share"] = summary.get("kv", {}).get("max_share")
        row["verdict"] = verdict(summary)
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
        f"KV {number(percent(kv.get('mean_share')))} % mean, {number(percent(kv.get('max_share')))} % max",
        f"{summary.get('preemptions', 0)} preemptions",
        verdict(summary),
    ]
    title = html.escape(f"{result.name}: {result.label}" if result.label != result.name else result.name)
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in result.warnings())
    return (
        f"<div><strong>{title}</strong><p>{html.escape(setting([result]))}</p>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{html.escape(' · '.join(fact for fact in facts if fact))}</p>"
        + (f"<ul>{lines}</ul>" if lines else "")
        + "</div>"
    )
