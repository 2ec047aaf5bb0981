"""The report of one or more runs: one HTML page that works offline, in the order a reader needs.

Who wins and the numbers, what to distrust, distributions, timelines, service levels, where the runs come from.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from llmsim.errors import ConfigError
from llmsim.reports.plots import overview
from llmsim.reports.plots.data import BINS, attainment, kv_blocks, latency_cdfs, replicas_of, timeline
from llmsim.reports.plots.figures import attainment_figure, cdf_figure, timeline_figure
from llmsim.reports.plots.page import html_table, write_page
from llmsim.reports.plots.style import Style, styles
from llmsim.runs.contests import SAME, number
from llmsim.runs.facts import FACTS, facts, shared_facts
from llmsim.runs.labels import policy_words, run_names
from llmsim.runs.text import same_requests

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from llmsim.runs.results import Result

Looks = Mapping[str, Style]
Sections = list["str | pd.DataFrame | go.Figure"]

MOST_VALUES = 4
"""Values of a fact that are told where it differs between runs."""
POINTS = 1000
"""Points of a distribution, a run and metric."""

FULL_DETAIL_RUNS = 8
"""More runs than this share the points of this many, so that the page stays below 10 MB."""


def write_report(results: Sequence[Result], path: str | Path) -> Path:
    """Write the page and return its path; an earlier page is replaced.

    A curve has about 1000 points however long the run was, and keeps its extremes. The same results give the same
    bytes. Raises ConfigError for no results, or if `path` is a directory.
    """
    if not results:
        raise ConfigError("a report needs at least one run but got none: name the run directories it is of")
    names = run_names(results)
    looks = styles(names)
    share = min(1.0, FULL_DETAIL_RUNS / len(results))
    sections = [
        *_overview(names, results, looks),
        *_trust(names, results, looks),
        *_latencies(results, looks, max(round(POINTS * share), 450)),
        *_timelines(names, results, looks, max(round(BINS * share), 60)),
        *_service_levels(results, looks),
        *_provenance(names, results),
    ]
    return write_page(path, _title(names, results), sections)


def _title(names: Sequence[str], results: Sequence[Result]) -> str:
    runs = " and ".join(dict.fromkeys(result.name for result in results))
    return f"{runs}: {names[0]}" if len(names) == 1 else f"{runs}: {len(names)} runs compared"


def _overview(names: Sequence[str], results: Sequence[Result], looks: Looks) -> Sections:
    summaries = [result.summary for result in results]
    sections: Sections = [_facts_list(results), "<h2>Who wins</h2>" if len(results) > 1 else "<h2>Result</h2>"]
    if lines := [*overview.verdicts(names, results), *overview.words(names, results)]:
        sections.append(_list(lines))
    groups = same_requests(results)
    sections.append(overview.latency_table(names, summaries, looks, groups))
    sections.append(overview.load_table(names, summaries, looks, groups))
    if len(results) > 1:
        sections.append(
            f'<p class="note">Bold on green: the best of its column among runs with the same requests, where another '
            f"is {SAME:.0%} or more behind.</p>"
        )
        if table := overview.differences_table(names, results, looks):
            sections += ["<p>What differs between the runs:</p>", table]
    return sections


def _facts_list(results: Sequence[Result]) -> str:
    """What the runs are of: GPU and model, replicas, requests, load, SLO; values of what differs one after another."""
    each = [facts(result) for result in results]
    policy = policy_words([result.label for result in results])[0]
    shown = {**({"policy": policy} if policy else {}), **shared_facts(each)}
    for name in (name for name in FACTS if name not in shown):
        if values := list(dict.fromkeys(found[name] for found in each if name in found)):
            shown[name] = " | ".join(values[:MOST_VALUES]) + (" | ..." if len(values) > MOST_VALUES else "")
    lines = [f"<li><b>{html.escape(name)}</b> {html.escape(words)}</li>" for name, words in shown.items()]
    return f'<ul class="facts">{"".join(lines)}</ul>' if lines else ""


def _trust(names: Sequence[str], results: Sequence[Result], looks: Looks) -> Sections:
    """Verdict, its reason, and every warning, a row a run; warnings that all runs share come once, above."""
    own = []
    for result in results:
        judged = result.summary.get("saturation", {})
        said = f"{judged.get('verdict')}: {judged.get('reason', '')}"  # a verdict stands in its row already
        own.append([line for line in result.warnings() if line != said])
    shared = [line for line in own[0] if len(own) > 1 and all(line in lines for lines in own)]
    rows = []
    for name, result, lines in zip(names, results, own, strict=True):
        reason = html.escape(str(result.summary.get("saturation", {}).get("reason", "")))
        rest = _list([line for line in lines if line not in shared]) or ("none of its own" if shared else "none")
        rows.append([overview.swatch(name, looks), overview.verdict(result.summary), reason, rest])
    sections: Sections = ["<h2>Can the numbers be trusted?</h2>"]
    if shared:
        sections.append(f"<p>Of all runs:</p>{_list(shared)}")
    return [*sections, html_table(["run", "load", "because", "warnings"], rows, text=(2, 3))]


def _list(lines: Sequence[str]) -> str:
    """Lines as a list; empty for none."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _latencies(results: Sequence[Result], looks: Looks, points: int) -> Sections:
    limits = [(result.summary.get("slo") or {}).get("limits_ms", {}) for result in results]
    shared = limits[0] if all(limit == limits[0] for limit in limits) else {}
    note = (
        "Of answered requests that arrived after the warm-up; a curve further left is faster. ITL pools the gaps of "
        "all requests."
    )
    if shared:
        note += " Dashed: the limit that holds for every request."
    figure = cdf_figure(latency_cdfs(results, points), shared, looks=looks)
    return ["<h2>Latencies</h2>", f'<p class="note">{note}</p>', figure]


def _timelines(names: Sequence[str], results: Sequence[Result], looks: Looks, bins: int) -> Sections:
    """A figure a run; but for tokens, whose numbers differ too much, on the same axes to compare by eye."""
    frames = [timeline(result, bins) for result in results]
    known = pd.concat(frames)
    highest = known[known["quantity"].isin(["waiting", "running"])].groupby("quantity")["high"].max()
    tops = {str(quantity): float(high) for quantity, high in highest.items()}
    note = "Lines are means over short stretches of time, the shade reaches from their lowest to their highest value."
    if max(map(replicas_of, results)) > 1:
        note += (
            " Requests and tokens are summed over the replicas; KV is the mean over the replicas, its shade from the "
            "emptiest to the fullest."
        )
    if len(results) > 1:
        note += " The axes of requests, KV and time are the same for all runs."
    sections: Sections = ["<h2>Timelines</h2>", f'<p class="note">{note}</p>']
    for name, result, frame in zip(names, results, frames, strict=True):
        if frame.empty:
            seen = result.token_times is None
            why = "no iteration ran" if seen else "measured on a server, whose batches are not seen"
            sections.append(f"<p>{html.escape(name)}: {why}.</p>")
            continue
        figure = timeline_figure(
            frame,
            title=name,
            look=looks[name],
            kv_is_share=bool(kv_blocks(result)),
            span_s=(float(known["start_s"].min()), float(known["end_s"].max())),
            tops=tops,
        )
        sections.append(figure)
    return sections


def _service_levels(results: Sequence[Result], looks: Looks) -> Sections:
    frame = attainment(results)
    if frame.empty:
        return []
    rows = []
    for row in frame.to_dict("records"):
        share, goodput = row["attainment"], row["goodput"]
        rows.append(
            [
                overview.swatch(row["run"], looks),
                html.escape(row["slo_class"]),
                html.escape(row["limits"] or "those of the classes"),
                f"{row['sent']:,}",
                f"{row['met']:,}",
                number(None if pd.isna(share) else 100 * share),
                number(None if pd.isna(goodput) else goodput),
                *(number(None if pd.isna(row[k]) else row[k]) for k in ("median_ttft_ms", "p99_ttft_ms", "p99_itl_ms")),
            ]
        )
    head = ["run", "class", "limits", "sent", "met", "met %", "goodput (req/s)"]
    head += ["TTFT p50 (ms)", "TTFT p99 (ms)", "ITL p99 (ms)"]
    note = (
        "Attainment counts unanswered requests as missed. A request must meet the limits of all requests and those of "
        "its class."
    )
    table = html_table(head, rows, text=(1, 2))
    return ["<h2>Service levels</h2>", f'<p class="note">{note}</p>', attainment_figure(frame, looks=looks), table]


def _provenance(names: Sequence[str], results: Sequence[Result]) -> Sections:
    parts = ["<h2>Where these runs come from</h2>"]
    for name, result in zip(names, results, strict=True):
        rows = [[html.escape(key), html.escape(value)] for key, value in _facts(result.manifest).items()]
        config = result.manifest.get("config", "")
        text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        parts.append(
            f"<details><summary>{html.escape(name)}</summary>{html_table(['', ''], rows, text=(1,))}"
            f"<details open><summary>configuration, every default written out</summary>"
            f"<pre>{html.escape(text)}</pre></details></details>"
        )
    return ["\n".join(parts)]


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What meta.json says, in words."""
    facts: dict[str, str] = {}
    if arguments := manifest.get("arguments"):
        facts["command"] = "llmsim " + shlex.join(map(str, arguments))
    facts["seed"] = str(manifest.get("seed", "-"))
    for used in manifest.get("calibrations") or [manifest.get("calibration") or {}]:
        if used:
            facts[f"calibration {used.get('name')}"] = f"{used.get('source')} (sha256 {used.get('sha256')})"
    workload = manifest.get("workload") or {}
    if trace := workload.get("trace"):
        facts["trace"] = ", ".join(f"{key} {value}" for key, value in trace.items())
    if "num_requests" in workload:
        facts["requests"] = ", ".join(
            f"{workload[key]:,} {key.replace('num_', '').replace('_', ' ')}"
            for key in ("num_requests", "prompt_tokens", "output_tokens")
            if key in workload
        )
    facts["versions"] = ", ".join(f"{key} {value}" for key, value in (manifest.get("versions") or {}).items())
    facts["Python"] = str(manifest.get("python", "-"))
    if git := manifest.get("git"):
        facts["git commit"] = f"{git.get('commit')}{', with uncommitted changes' if git.get('dirty') else ''}"
    if timing := manifest.get("wall_time"):
        facts["wall time"] = ", ".join(f"{key.removesuffix('_s')} {value:.2f} s" for key, value in timing.items())
    return facts
