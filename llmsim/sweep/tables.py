"""The two tables of a sweep: a row a run, and a row a point and figure with means and paired differences over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmsim.sweep.points import Plan
from llmsim.sweep.worker import Outcome
from llmsim.theory.intervals import Floats, intervals

Get = Callable[[str], Outcome | None]
"""The outcome of a key, None where it has not been run."""

DONE, FAILED = "done", "failed"
ENDS = ("mean", "ci95_low", "ci95_high")
PAIRS = ("requests", "lengths", "seed")
"""What a point and its reference share, seed by seed: the very same requests, their lengths, or the seed alone."""


def result_table(plan: Plan, get: Get) -> pd.DataFrame:
    """One row a run that was run, by point, then seed: `point`, the varied fields, `seed`, `status`, `error`, figures.

    Failed runs have no figures. `lengths_sha256` and `requests_sha256` tell which workloads are the same. The same
    plan and outcomes give the same table, wherever they were run.
    """
    rows = [
        (point, seed, outcome)
        for point, keys in enumerate(plan.keys)
        for seed, key in zip(plan.seeds, keys, strict=True)
        if (outcome := get(key)) is not None
    ]
    columns: dict[str, Any] = {"point": np.array([point for point, _, _ in rows], dtype=np.int64)}
    for field in plan.fields:
        whole = column([cells[field] for cells in plan.points])  # the type is the whole sweep's, not this shard's
        columns[field] = whole.iloc[columns["point"]].reset_index(drop=True)
    columns["seed"] = np.array([seed for _, seed, _ in rows], dtype=np.int64)
    columns["status"] = [FAILED if outcome.failed else DONE for _, _, outcome in rows]
    columns["error"] = [outcome.error for _, _, outcome in rows]
    for name in dict.fromkeys(name for _, _, outcome in rows for name in outcome.figures):
        columns[name] = column([outcome.figures.get(name) for _, _, outcome in rows])
    columns["lengths_sha256"] = [outcome.lengths for _, _, outcome in rows]
    columns["requests_sha256"] = [outcome.requests for _, _, outcome in rows]
    return pd.DataFrame(columns)


def column(values: Sequence[Any]) -> pd.Series:
    """Values as a column: int64 or bool where all are, float64 (NaN for None) for other numbers, else text."""
    known = [value for value in values if value is not None]
    kinds = {type(value) for value in known}
    if len(known) == len(values) and kinds in ({int}, {bool}):
        return pd.Series(values)
    if kinds <= {int, float}:
        return pd.Series([np.nan if value is None else value for value in values], dtype=np.float64)
    return pd.Series([None if value is None else str(value) for value in values])


def mean_table(plan: Plan, results: pd.DataFrame) -> pd.DataFrame:
    """One row a point and figure: `seeds` with a value, their `mean` and the ends of its 95 % interval (Student's t).

    A point that lacks a seed's value has no mean: one over the others would hide what that seed ran into. With a
    reference: `reference` (its point), `pairs` (PAIRS: what both share), `difference` (the mean over seeds of the
    point's value less the reference's) and `change_pct` (of the same, in percent of the reference's value), each with
    its interval; they are NaN for the reference itself.
    """
    figures = figures_of(plan, results)
    shape = (len(plan.points), len(plan.seeds))
    place = results["point"].to_numpy(), results["seed"].map({s: i for i, s in enumerate(plan.seeds)}).to_numpy()
    against = np.array([np.nan if point is None else point for point in plan.reference], dtype=np.float64)
    parts = []
    for order, name in enumerate(figures):
        values = np.full(shape, np.nan)
        values[place] = results[name].to_numpy(dtype=np.float64)
        part: dict[str, Any] = {"point": np.arange(shape[0]), "order": order, "figure": name}
        part["seeds"] = np.isfinite(values).sum(axis=1)
        part |= dict(zip(ENDS, intervals(values), strict=True))
        parts.append(pd.DataFrame(part | (_differences(values, against) if np.isfinite(against).any() else {})))
    head = ["point", *plan.fields, "figure", "seeds", *ENDS]
    if not parts:
        return pd.DataFrame(columns=head)
    table = pd.concat(parts).sort_values(["point", "order"], kind="stable", ignore_index=True).drop(columns="order")
    for field in plan.fields:
        table[field] = column([cells[field] for cells in plan.points]).iloc[table["point"]].to_numpy()
    if np.isfinite(against).any():
        table["reference"] = against[table["point"]].astype(np.int64)
        table["pairs"] = np.array(pairs(plan, results), dtype=object)[table["point"]]
        head += ["reference", "pairs", *(name for name in table.columns if name.startswith(("difference", "change")))]
    return table[head]


def figures_of(plan: Plan, results: pd.DataFrame) -> list[str]:
    """The figures that are numbers, in the order of the summary."""
    known = {"point", "seed", *plan.fields}
    numeric = results.select_dtypes(include=["number"], exclude=["bool"]).columns
    return [name for name in numeric if name not in known]


def _differences(values: Floats, against: Floats) -> dict[str, Floats]:
    """Seed by seed against the reference's row; NaN rows where a point is its own reference."""
    base = values[against.astype(np.int64)]
    own = against == np.arange(len(values))
    gap = values - base
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(base > 0, 100 * gap / base, np.nan)
    columns = {}
    for name, samples in (("difference", gap), ("change_pct", change)):
        samples[own] = np.nan
        for end, found in zip(ENDS, intervals(samples), strict=True):
            columns[name if end == "mean" else f"{name}_{end}"] = found
    return columns


def pairs(plan: Plan, results: pd.DataFrame) -> list[str | None]:
    """For each point what it shares with its reference with every seed (PAIRS); None where runs of either are missing.

    Runs are missing in a shard; a point without reference has None, too.
    """
    known = {
        (point, seed): (requests, lengths)
        for point, seed, requests, lengths in zip(
            results["point"], results["seed"], results["requests_sha256"], results["lengths_sha256"], strict=True
        )
    }
    found: list[str | None] = []
    for point, other in enumerate(plan.reference):
        if other is None or any((at, seed) not in known for at in (point, other) for seed in plan.seeds):
            found.append(None)
            continue
        both = [(known[point, seed], known[other, seed]) for seed in plan.seeds]
        same = [next((at for at in (0, 1) if mine[at] == base[at] != ""), 2) for mine, base in both]
        found.append(PAIRS[max(same)])
    return found
