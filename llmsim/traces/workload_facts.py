"""Sums over the requests of a workload, and what the manifest says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.core.request import NO_SLO, SloClass
from llmsim.traces.classes import row_classes
from llmsim.traces.file_times import FileTimes
from llmsim.units import SECOND

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.traces.served_models import Limits
    from llmsim.traces.spec import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What is known of a workload when all its requests have been seen."""

    num_requests: int
    first_arrival_ns: int
    last_arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    dropped: dict[str, int]
    clipped: int


@dataclass(slots=True)
class RowTotals:
    """Sums over the rows of a file that become requests."""

    taken: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    first_ns: int = 0
    last_ns: int = 0
    classes: tuple[SloClass, ...] = (NO_SLO,)
    known: dict[tuple[Any, ...], int] = field(default_factory=dict)
    models: bool = False
    """Whether the rows have a column `model`."""

    def add(self, table: pd.DataFrame) -> None:
        """Count the rows of one block."""
        if not len(table):
            return
        if "arrival_ns" in table.columns:
            arrival = table["arrival_ns"].to_numpy()
            self.first_ns = self.first_ns if self.taken else int(arrival[0])
            self.last_ns = int(arrival[-1])
        self.models = "model" in table.columns
        self.taken += len(table)
        self.prompt_tokens += int(table["prompt_tokens"].sum())
        self.output_tokens += int(table["output_tokens"].sum())
        self.classes = row_classes(table, np.arange(len(table)), self.known)[1]


@dataclass(slots=True)
class LengthTotals:
    """Sums over the lengths of all requests."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: int = 0


def trace_facts(
    name: str, kind: str, rows: int, sha256: str, moved: int | None = None, times: FileTimes | None = None
) -> dict[str, Any]:
    """What the manifest says about the trace of a workload.

    `moved`: rows put in another place, if it was sorted; `shifted_s`: seconds taken off its times, if any were.
    """
    facts: dict[str, Any] = {"name": name, "kind": kind, "rows": rows, "sha256": sha256}
    if moved is not None:
        facts["moved"] = moved
    if times is not None and times.shift_ns:
        facts["shifted_s"] = times.shift_ns / SECOND
    return facts


def order_notes(description: Mapping[str, Any]) -> list[str]:
    """A sentence for who reads a result, if the trace was put in order of arrival."""
    moved = (description.get("trace") or {}).get("moved")
    return [] if moved is None else [f"the trace was put in order of arrival: {moved:,} rows moved"]


def describe(
    spec: WorkloadSpec,
    seed: int,
    max_model_len: Limits,
    trace: dict[str, Any] | None,
    total: Totals,
    times: FileTimes | None = None,
) -> dict[str, Any]:
    """What the manifest says: the specification, the seed, the trace with its digest, and what came of it."""
    notes = [*spec.lengths.notes, *(times.notes if times is not None else ())]
    span_s = float(total.last_arrival_ns - total.first_arrival_ns) / SECOND
    return {
        "spec": _plain(asdict(spec)),
        "seed": int(seed),
        "max_model_len": _by_model(max_model_len),
        "trace": trace,
        "num_requests": total.num_requests,
        "span_s": span_s,
        "process_rate": _plain(spec.arrivals.mean_rate),
        "mean_rate": total.num_requests / span_s if span_s > 0 else None,
        "prompt_tokens": total.prompt_tokens,
        "output_tokens": total.output_tokens,
        "dropped": dict(total.dropped),
        "clipped": total.clipped,
        **({"notes": notes} if notes else {}),
    }


def _by_model(limits: Limits) -> Any:
    """Limits for the manifest: one number where one model is served."""
    if not isinstance(limits, Mapping):
        return limits
    return dict(limits) if len(limits) > 1 else next(iter(limits.values()))


def _plain(value: Any) -> Any:
    """The value with infinite numbers as text, which JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if value in (math.inf, -math.inf) else value
