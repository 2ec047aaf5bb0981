"""A sweep for people: means with their intervals, changes against the reference, and what a reader must know."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError, did_you_mean
from llmsim.runs.contests import number
from llmsim.runs.text import WIDTH, wrapped
from llmsim.sweep.points import Plan
from llmsim.sweep.tables import FAILED, figures_of, pairs

USUAL = {
    "p50_ttft_ms": "p50 TTFT ms",
    "p99_ttft_ms": "p99 TTFT ms",
    "p50_tpot_ms": "p50 TPOT ms",
    "p99_itl_ms": "p99 ITL ms",
    "output_throughput": "out tok/s",
    "slo.attainment": "SLO %",
}
"""The figures that are printed unless others are asked for, with their titles."""
PERCENT = ("slo.attainment",)
"""Shares that are printed in percent."""
MOST_ROWS = 60
MOST_FAILURES = 10
LABEL_WIDTH = 22
VERDICTS = ("overloaded", "near saturation", "undetermined", "stable")
"""From the worst: the worst of a point's seeds is what its column shows."""

Cell = Callable[[pd.Series], str]


def sweep_text(
    plan: Plan, results: pd.DataFrame, means: pd.DataFrame, figures: Sequence[str] = (), setting: str = ""
) -> str:
    """What the runs share (`setting`), means by point, paired changes, failed runs, notes; `figures`: not USUAL.

    Raises ConfigError for a figure that the sweep does not have.
    """
    shown = _shown(plan, results, figures)
    parts = ["\n".join([_title(plan, results), *wrapped(setting)])]
    if not means.empty:
        table = headline(plan, results, means, shown)
        parts.append(_table(table))
        changes = headline(plan, results, means, shown, _change) if "reference" in means else None
        if changes is not None and len(changes):
            parts.append(f"{_against(plan)}: change in %, seed by seed\n\n{_table(changes)}")
        if legend := _legend(plan):
            parts.append(legend)
    parts += [*_failures(plan, results)]
    notes = [
        line for note in _notes(plan, results, means) for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")
    ]
    return "\n\n".join(part for part in (*parts, "\n".join(notes)) if part)


def sweep_html(plan: Plan, results: pd.DataFrame, means: pd.DataFrame, setting: str = "") -> str:
    """The same as HTML for notebooks."""
    table = headline(plan, results, means, _shown(plan, results, ())).to_html(index=False) if len(means) else ""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(plan, results, means))
    failures = "".join(f"<pre>{html.escape(text)}</pre>" for text in _failures(plan, results))
    head = f"<strong>{html.escape(_title(plan, results))}</strong><p>{html.escape(setting)}</p>"
    return f"<div>{head}{table}{failures}<ul>{notes}</ul></div>"


def headline(
    plan: Plan, results: pd.DataFrame, means: pd.DataFrame, figures: dict[str, str], cell: Cell | None = None
) -> pd.DataFrame:
    """One row a point as text: the varied fields under short names, a column a figure, and the load."""
    cell = cell or _mean
    points = sorted(set(results["point"]))
    if cell is _change:
        shared = pairs(plan, results)
        points = [point for point in points if plan.reference[point] != point and shared[point] is not None]
    columns: dict[str, list[str]] = {}
    for field, title in zip(plan.fields, short_names(plan.fields), strict=True):
        labels = _labels(plan, field)
        columns[title] = [labels[str(plan.points[point][field])] for point in points]
    for figure, title in figures.items():
        rows = means[means["figure"] == figure].set_index("point")
        columns[title] = [cell(rows.loc[point]) for point in points]
    if cell is _mean:
        columns["load"] = [_load(results[results["point"] == point]) for point in points]
    return pd.DataFrame(columns)


def short_names(fields: Sequence[str]) -> list[str]:
    """The last part of each dotted field, or all of it where two share that or it is a place in a list."""
    last = [field.rpartition(".")[2] for field in fields]
    return [
        short if last.count(short) == 1 and not short.isdigit() else field
        for short, field in zip(last, fields, strict=True)
    ]


def _shown(plan: Plan, results: pd.DataFrame, figures: Sequence[str]) -> dict[str, str]:
    known = figures_of(plan, results)
    for figure in figures:
        if figure not in known:
            raise ConfigError(f"--show: the sweep has no figure {figure!r}.{did_you_mean(figure, known)}")
    if figures:
        return {figure: USUAL.get(figure, figure) for figure in figures}
    return {figure: title for figure, title in USUAL.items() if figure in known}


def _mean(row: pd.Series) -> str:
    scale = 100 if row["figure"] in PERCENT else 1
    half = (row["ci95_high"] - row["ci95_low"]) / 2
    if np.isnan(row["mean"]):
        return "-"
    return number(scale * row["mean"]) + ("" if np.isnan(half) else f" ±{number(scale * half)}")


def _change(row: pd.Series) -> str:
    half = (row["change_pct_ci95_high"] - row["change_pct_ci95_low"]) / 2
    if np.isnan(row["change_pct"]):
        return "-"
    return f"{row['change_pct']:+.1f}" + ("" if np.isnan(half) else f" ±{half:.1f}")


def _load(rows: pd.DataFrame) -> str:
    """The worst verdict, and with how many of the seeds; failed runs first."""
    failed = int((rows["status"] == FAILED).sum())
    if failed:
        return f"failed {failed}/{len(rows)}"
    verdicts = rows["saturation.verdict"].tolist()
    worst = next((verdict for verdict in VERDICTS if verdict in verdicts), verdicts[0])
    count = verdicts.count(worst)
    return worst if count == len(verdicts) else f"{worst} {count}/{len(verdicts)}"


def _title(plan: Plan, results: pd.DataFrame) -> str:
    runs = len(plan.points) * len(plan.seeds)
    there = "" if len(results) == runs else f", {len(results)} of them here"
    seeds = f"{len(plan.seeds)} seeds" if len(plan.seeds) > 1 else "1 seed"
    means = "; mean ± half of its 95 % interval over seeds" if len(plan.seeds) > 1 else ""
    return f"{plan.name}: {len(plan.points)} points, {seeds}, {runs} runs{there}{means}"


def _against(plan: Plan) -> str:
    """The varied values that the reference has whatever point is compared with it."""
    bases = [plan.points[point] for point in set(plan.reference) if point is not None]
    fixed = [field for field in plan.fields if len({str(base[field]) for base in bases}) == 1]
    return "Against " + ", ".join(f"{field}={bases[0][field]}" for field in fixed)


def _labels(plan: Plan, field: str) -> dict[str, str]:
    """How each value of a field is printed; long ones by number, with a legend."""
    values = list(dict.fromkeys(str(cells[field]) for cells in plan.points))
    if max(map(len, values)) <= LABEL_WIDTH:
        return {value: value for value in values}
    heads = (value.split(",")[0].rpartition(":")[2] for value in values)
    return {v: f"[{at}] {head[: LABEL_WIDTH - 5]}" for at, (v, head) in enumerate(zip(values, heads, strict=True), 1)}


def _legend(plan: Plan) -> str:
    lines = []
    for field in plan.fields:
        labels = _labels(plan, field)
        lines += [f"{label.split()[0]} {value}" for value, label in labels.items() if label != value]
    return "\n".join(lines)


def _table(table: pd.DataFrame) -> str:
    """Columns padded to their widest cell: text flush left, numbers flush right."""
    rows = table.head(MOST_ROWS)
    lines = [list(map(str, table.columns)), *rows.astype(str).to_numpy().tolist()]
    widths = [max(len(line[at]) for line in lines) for at in range(len(table.columns))]
    left = [not all(_numeric(line[at]) for line in lines[1:]) for at in range(len(widths))]
    text = [
        "  ".join(
            cell.ljust(width) if flush else cell.rjust(width)
            for cell, width, flush in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    ]
    if len(table) > MOST_ROWS:
        text.append(f"... and {len(table) - MOST_ROWS} more points, in means.parquet")
    return "\n".join(text)


def _numeric(text: str) -> bool:
    return text == "-" or text.lstrip("+-")[:1].isdigit()


def _failures(plan: Plan, results: pd.DataFrame) -> Iterator[str]:
    failed = results[results["status"] == FAILED]
    if len(failed):
        rows: list[Any] = list(zip(failed["point"], failed["seed"], failed["error"], strict=True))
        lines = [f"  {plan.words(point, seed)}: {error}" for point, seed, error in rows[:MOST_FAILURES]]
        more = [f"  ... and {len(rows) - MOST_FAILURES} more"] if len(rows) > MOST_FAILURES else []
        yield "\n".join([f"Failed: {len(rows)} of {len(results)} runs", *lines, *more])


def _notes(plan: Plan, results: pd.DataFrame, means: pd.DataFrame) -> Iterator[str]:
    done = results[results["status"] != FAILED]
    if len(plan.seeds) == 1:
        yield "One seed: no intervals. Give seeds: 5 or more."
    elif len(done) and (done.groupby("point")["requests_sha256"].nunique() == 1).all():
        yield "The workload is the same for every seed, so the intervals say nothing about another one."
    if len(done) < len(results):
        yield "Points with a failed run have no mean: one over the other seeds would hide what it ran into."
    if "pairs" in means:
        here = means.drop_duplicates("point").query("reference != point and point in @results.point")
        kinds = here["pairs"].dropna()
        if len(kinds) < len(here):
            yield (
                f"{len(here) - len(kinds)} of {len(here)} points: the reference, or some seeds, is in another shard: "
                "compare after merging."
            )
        for kind, words in (("lengths", "the lengths, not the arrivals"), ("seed", "nothing but the seed")):
            if (count := int((kinds == kind).sum())) > 0:
                yield f"{count} of {len(kinds)} points share with their reference {words}: not the same requests."
    share = done.get("calibration.share_outside_box")
    if share is not None and (outside := int((share > 0).sum())):
        yield (
            f"Extrapolated: in {outside} of {len(done)} runs iterations lie outside what the calibration was measured "
            f"on, up to {share.max():.1%} of a run (calibration.share_outside_box)."
        )
