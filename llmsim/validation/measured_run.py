"""A run measured elsewhere as requests and as a Result, so that it is compared as a live run is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER, NO_SLO
from llmsim.errors import ConfigError
from llmsim.metrics import metrics_on, summarize_measured
from llmsim.metrics.timeline import Timeline, ints
from llmsim.runs.manifest import versions
from llmsim.runs.results import Result
from llmsim.runs.tables import LEADING, no_iterations, slo_columns
from llmsim.traces.workload import Workload
from llmsim.validation.measured_file import TIMES, MeasuredFile, read_measured

if TYPE_CHECKING:
    from llmsim.metrics.quantiles import Ints

ORIGINS = {"arrival": "arrival_s", "queued": "queued_s"}
"""Where the clock of a request starts: at the API, or when the engine accepted it."""


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredRun:
    """The requests of a measured run, counted from `origin`, in the order in which they set out.

    `requests` is a request table (docs/metrics.md) with request_id and line of the file; its clock, int ns, starts when
    the first request sets out. `scheduled`: whether it is known when requests were first scheduled.
    """

    file: MeasuredFile
    origin: str
    requests: pd.DataFrame = field(repr=False)
    scheduled: bool

    @property
    def name(self) -> str:
        """The file's name without its endings, or that of the run's folder it lies in."""
        path = Path(self.file.source)
        stem = Path(path.stem).stem if path.suffix == ".gz" else path.stem
        of_a_run = stem == "requests" and (path.parent / "meta.json").is_file()  # llmsim bench's runs/NAME/requests.csv
        return path.parent.resolve().name if of_a_run else stem

    def workload(self) -> Workload:
        """The very requests: their times of setting out and their lengths."""
        table = self.requests
        arrival = ints(table, "arrival_ns")
        return Workload(
            arrival_ns=arrival,
            prompt_tokens=ints(table, "prompt_tokens"),
            output_tokens=ints(table, "output_tokens"),
            slo_index=np.zeros(len(table), dtype=np.int64),
            dropped=dict(self.file.dropped),
            description={"measured": self._origin(), "num_requests": len(table), "span_s": float(arrival[-1]) / 1e9},
        )

    def result(self, warmup_s: float = 0.0) -> Result:
        """The run as a Result without iterations and without times of single tokens; figures as in `summarize`."""
        iterations, ranges = no_iterations()
        nothing = pd.DataFrame({"id": np.zeros(0, dtype=np.int64), "time_ns": np.zeros(0, dtype=np.int64)})
        latencies = metrics_on(self.requests, Timeline.of_times(self.requests, nothing)).drop(columns="id")
        summary: dict[str, Any] = {"name": self.name, "scheduler": f"measured {self.name}"}
        summary |= summarize_measured(self.requests, nothing, warmup_s=warmup_s)
        summary["requests"]["dropped_from_trace"] = dict(self.file.dropped)
        return Result(
            name=self.name,
            requests=pd.concat([self.requests, latencies], axis="columns"),
            iterations=iterations,
            token_ranges=ranges,
            token_times=nothing,
            summary=summary,
            manifest={"config": {}, "measured": self._origin(), "versions": versions()},
        )

    def notes(self) -> list[str]:
        """What a reader of the comparison must know about the file, one sentence each."""
        lines = [f"latencies of both sides count from {ORIGINS[self.origin]} of {self.file.source}"]
        if self.origin == "arrival":
            lines.append("the API's own time (HTTP, tokenising, handing over) is in the measured TTFT only")
        lines.append("ITL is not compared: the file has no times of single tokens; nor are KV use and preemptions")
        if self.file.dropped:
            what = ", ".join(f"{count} {reason}" for reason, count in self.file.dropped.items())
            lines.append(f"rows left out on request: {what}; the server had their load, the simulation has not")
        at_once = self.requests["first_token_ns"] == self.requests["finish_ns"]
        at_once &= self.requests["output_tokens"] > 1
        if at_once.any():
            lines.append(f"{int(at_once.sum())} requests got several tokens all at once, so their TPOT is 0")
        return lines

    def _origin(self) -> dict[str, Any]:
        file = self.file
        return {"file": file.source, "sha256": file.sha256, "origin": self.origin, "dropped": dict(file.dropped)}


def measured_run(path: str | Path, origin: str = "arrival", on_bad: str = "error") -> MeasuredRun:
    """The run in `path`: a file, or a folder with requests.csv. `origin` is where latencies and arrivals count from:
    'arrival' (at the API) or 'queued' (accepted by the engine).

    Raises TraceError as `read_measured` does, ConfigError for another origin, or one that the file does not have.
    """
    if origin not in ORIGINS:
        raise ConfigError(f"origin must be one of {', '.join(ORIGINS)} but got {origin!r}")
    if Path(path).is_dir():
        path = Path(path) / "requests.csv"  # what `llmsim bench` leaves in a run's folder
    file = read_measured(path, on_bad)
    if ORIGINS[origin] not in file.times:
        raise ConfigError(
            f"{path}: origin {origin!r} needs times in column {ORIGINS[origin]!r}, which the file does not have; only "
            "the engine's own log has them. Count from the API's arrival: --origin arrival"
        )
    scheduled = "scheduled_s" in file.times
    return MeasuredRun(file, origin, _requests(file, ORIGINS[origin], scheduled), scheduled)


def _requests(file: MeasuredFile, origin: str, scheduled: bool) -> pd.DataFrame:
    """The request table. Requests that set out together keep the order of the file, as a queue would."""
    rows = file.rows.sort_values(origin, kind="stable", ignore_index=True)
    start = int(rows[origin].iloc[0])
    count = len(rows)

    def at(column: str) -> Ints:
        return ints(rows, column) - start

    never = np.full(count, NEVER, dtype=np.int64)
    columns: dict[str, object] = {
        "id": np.arange(count, dtype=np.int64),
        "replica": np.zeros(count, dtype=np.int64),
        "arrival_ns": at(origin),
        "prompt_tokens": ints(rows, "input_tokens"),
        "output_tokens": ints(rows, "output_tokens"),
        "first_scheduled_ns": at("scheduled_s") if scheduled else never,
        "prefill_end_ns": never,
        "finish_ns": at(TIMES[-1]),
        "generated": ints(rows, "output_tokens"),
        "first_token_ns": at("first_token_s"),
        "status": np.full(count, "finished", dtype=object),
        "reject_reason": np.full(count, "", dtype=object),
        "request_id": rows["request_id"].to_numpy(),
        "line": ints(rows, "line"),
    }
    columns |= slo_columns([NO_SLO] * count)
    table = pd.DataFrame(columns)
    return table[[*LEADING, *(name for name in table.columns if name not in LEADING)]]
