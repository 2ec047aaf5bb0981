"""Requests and recorders to the three tables of a result; columns are described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.engine.recorder import FIELDS

if TYPE_CHECKING:
    from llmsim.core.request import Request, SloClass
    from llmsim.engine.recorder import Recorder

INT_FIELDS = [
    "id",
    "arrival_ns",
    "prompt_tokens",
    "output_tokens",
    "first_scheduled_ns",
    "prefill_end_ns",
    "finish_ns",
    "generated",
    "preemptions",
    "chunks",
    "prompt_completions",
]


LEADING = (
    "id",
    "replica",
    "arrival_ns",
    "prompt_tokens",
    "output_tokens",
    "slo_class",
    "tbt_s",
    "ttft_s_target",
    "ttlt_s",
    "tier",
    "priority",
)
"""What a request is stands before what happened to it."""


def iteration_table(recorders: Sequence[Recorder]) -> pd.DataFrame:
    """One row an iteration, sorted by replica, then iteration."""
    return stacked([replica_iterations(index, recorder.table()) for index, recorder in enumerate(recorders)])


def replica_iterations(replica: int, columns: dict[str, np.ndarray], first: int = 0) -> dict[str, np.ndarray]:
    """Columns of a recorder's table with the replica's index and the numbers of its iterations, from `first` on."""
    rows = len(columns["start_ns"])
    return {"replica": np.full(rows, replica), "iteration": np.arange(first, first + rows), **columns}


def stacked(parts: Sequence[dict[str, np.ndarray]]) -> pd.DataFrame:
    """The iteration table of the parts of several replicas, one below the other."""
    whole = {
        name: parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    whole["in_set"] = whole["in_set"].astype(bool)
    return pd.DataFrame(whole, copy=False)  # columns stay the arrays they are: a copy costs as much as the log


def no_iterations() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of iterations and token ranges of a run whose batches nobody saw: all columns, no rows."""
    names = ("replica", "iteration", *(name for name in FIELDS if name != "iterations"))
    table = pd.DataFrame({name: np.zeros(0, dtype=np.int64) for name in names}).astype({"in_set": bool})
    return table, token_range_table([])


def token_range_table(requests: Sequence[Request]) -> pd.DataFrame:
    """Which iterations emitted a token of which request: id, replica, first_iteration, last_iteration, in_set."""
    counts = np.array([len(r.token_ranges) // 2 for r in requests], dtype=np.int64)
    ends = chain.from_iterable(map(attrgetter("token_ranges"), requests))
    flat = np.fromiter(ends, np.int64, 2 * int(counts.sum())).reshape(-1, 2)
    in_set = flat[:, 0] >= 0
    ids = np.array([r.id for r in requests], dtype=np.int64)
    replicas = np.array([r.replica for r in requests], dtype=np.int64)
    return pd.DataFrame(
        {
            "id": np.repeat(ids, counts),
            "replica": np.repeat(replicas, counts),
            "first_iteration": np.where(in_set, flat[:, 0], -flat[:, 0] - 1),
            "last_iteration": np.where(in_set, flat[:, 1], -flat[:, 1] - 1),
            "in_set": in_set,
        }
    )


def request_table(
    requests: Sequence[Request],
    first_token_ns: np.ndarray,
    unstreamed: Collection[int] = (),
    *,
    models: bool = False,
    caching: bool = False,
) -> pd.DataFrame:
    """One row a request that was sent, sorted by id; `first_token_ns` (requests,) is NEVER where none came.

    Replicas in `unstreamed` deliver whole answers: the first token of their requests comes with the last. `models`:
    with the column `model`, what each request asked for. `caching`: with the column `cached_tokens`.
    """
    fields = [*INT_FIELDS, "cached_tokens"] if caching else INT_FIELDS
    values = chain.from_iterable(map(attrgetter(*fields), requests))
    rows = np.fromiter(values, np.int64, len(requests) * len(fields)).reshape(-1, len(fields))
    columns: dict[str, object] = {name: rows[:, at].copy() for at, name in enumerate(fields)}
    columns["replica"] = np.array([r.replica for r in requests], dtype=np.int64)
    columns["first_token_ns"] = first_token_ns
    if unstreamed:
        whole = np.isin(np.asarray(columns["replica"]), list(unstreamed))
        columns["first_token_ns"] = np.where(whole, columns["finish_ns"], columns["first_token_ns"])  # type: ignore[call-overload]
    columns |= slo_columns([r.slo for r in requests], models=models)
    rejected = [r.rejected for r in requests]
    finished = np.asarray(columns["finish_ns"]) != NEVER
    other = np.where(np.array(rejected, dtype=object) == "", "unfinished", "rejected")
    columns["status"] = np.where(finished, "finished", other)
    columns["reject_reason"] = rejected
    table = pd.DataFrame(columns)
    table = table[[*LEADING, *(name for name in table.columns if name not in LEADING)]]
    return table.sort_values("id", kind="stable", ignore_index=True)


def first_tokens(ids: np.ndarray, iterations: pd.DataFrame, ranges: pd.DataFrame) -> np.ndarray:
    """End of the iteration that emitted each request's first token, NEVER for none; shape (requests,)."""
    out = np.full(len(ids), NEVER, dtype=np.int64)
    if not len(ranges):
        return out
    owner, at = np.unique(ranges["id"].to_numpy(), return_index=True)
    first = ranges.iloc[at]
    replica, index = first["replica"].to_numpy(), first["first_iteration"].to_numpy()
    times = np.empty(len(first), dtype=np.int64)
    for in_set in (True, False):
        of_kind = first["in_set"].to_numpy() == in_set
        clock = iterations[iterations["in_set"]] if in_set else iterations
        begins = np.searchsorted(clock["replica"].to_numpy(), replica[of_kind])
        times[of_kind] = clock["end_ns"].to_numpy()[begins + index[of_kind]]
    place = np.argsort(ids, kind="stable")
    out[place[np.searchsorted(ids[place], owner)]] = times
    return out


def slo_columns(classes: Sequence[SloClass], *, models: bool = False) -> dict[str, object]:
    """The columns of what is asked for, one row a request; with `models` also `model`. Requests of a class share it."""
    kinds = {id(c): c for c in classes}
    place = {key: at for at, key in enumerate(kinds)}
    of = np.fromiter((place[id(c)] for c in classes), np.int64, len(classes))

    def column(values: list[object], dtype: object) -> np.ndarray:
        return np.array(values, dtype=dtype)[of]  # type: ignore[call-overload, no-any-return]

    def target(name: str) -> np.ndarray:
        given = [getattr(c, name) for c in kinds.values()]
        return column([np.nan if value is None else value for value in given], np.float64)

    asked = {"model": column([c.model for c in kinds.values()], object)} if models else {}
    return asked | {
        "slo_class": column([c.name for c in kinds.values()], object),
        "tbt_s": target("tbt_s"),
        "ttft_s_target": target("ttft_s"),
        "ttlt_s": target("ttlt_s"),
        "tier": column([-1 if c.tier is None else c.tier for c in kinds.values()], np.int64),
        "priority": column([c.priority for c in kinds.values()], bool),
    }
