"""A measured run against the simulation of the same requests: how far off, at which stage, at which pace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.errors import ConfigError
from llmsim.metrics.json_values import json_value
from llmsim.metrics.timeline import ints
from llmsim.runs.replica_groups import groups_of
from llmsim.runs.results import Result
from llmsim.runs.simulation import simulate
from llmsim.validation.compare import ErrorTable, compare
from llmsim.validation.compare_runs import Counterfactual
from llmsim.validation.pace import Pace, pace_of
from llmsim.validation.speed import constant, simulate_at
from llmsim.validation.stages import company_errors, phase_errors, stage_errors

if TYPE_CHECKING:
    from llmsim.metrics.quantiles import Ints
    from llmsim.runs.replica_groups import ReplicaGroup
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.workload import Workload
    from llmsim.validation.measured_run import MeasuredRun

AT_MEASURED_PACE = "the bias of pure decode iterations taken away"


@dataclass(frozen=True, eq=False, kw_only=True)
class Against:
    """One policy's simulation against a measured run.

    `stages`, `phases` and `company` are tables of stages.py. `pace` is None where it cannot be told whose iterations
    they are; `notes` says so.
    """

    live: Result
    simulated: Result
    errors: ErrorTable
    stages: pd.DataFrame
    phases: pd.DataFrame
    company: pd.DataFrame
    pace: Pace | None
    counterfactuals: tuple[Counterfactual, ...]
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The simulated policy."""
        return self.simulated.label

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        found = {
            "scheduler": self.label,
            "measured": self.live.manifest["measured"],
            **self.errors.as_dict(),
            "stages": self.stages.to_dict("records"),
            "by_arrival": self.phases.to_dict("records"),
            "by_decoding_requests": self.company.to_dict("records"),
            "pace": None if self.pace is None else self.pace.as_dict(),
            "counterfactuals": [found.as_dict() for found in self.counterfactuals],
            "notes": list(self.notes),
        }
        return {key: json_value(value) for key, value in found.items()}


def compare_against(spec: RunSpec, measured: MeasuredRun, scheduler: Any = None) -> Against:
    """Simulate `spec` with the measured requests as its workload, and compare.

    `scheduler` stands in for the spec's, as in `simulate`. Raises ConfigError for a spec that cuts the run or has
    other definitions of latencies, for a prompt that the model cannot take, and unless every measured request
    finished in the simulation with the same number of tokens; and what `simulate` raises.
    """
    _check(spec, measured)
    workload, live = measured.workload(), measured.result(spec.warmup_s)
    simulated = simulate(spec, scheduler=scheduler, workload=workload)
    check_finished(live, simulated)
    pace, notes = _pace(spec, measured, scheduler)
    return Against(
        live=live,
        simulated=simulated,
        errors=compare(live, simulated),
        stages=stage_errors(live.requests, simulated.requests, scheduled=measured.scheduled),
        phases=phase_errors(live.requests, simulated.requests),
        company=company_errors(live.requests, simulated.requests),
        pace=pace,
        counterfactuals=_counterfactuals(spec, pace, live, workload, scheduler),
        notes=(*measured.notes(), *notes, *_ahead_note(spec, measured), *_warmup_note(spec)),
    )


def _ahead_note(spec: RunSpec, measured: MeasuredRun) -> list[str]:
    if not (measured.scheduled and any(_ahead(group) for group in groups_of(spec))):
        return []
    return [
        "the server schedules ahead: its scheduled_s is when a batch was formed, an iteration before it began, which "
        "is what the simulation counts; so measured queueing is shorter and prefill longer by as much"
    ]


def _ahead(group: ReplicaGroup) -> bool:
    asked, terms = group.engine.async_scheduling, group.calibration.engine
    return asked if asked is not None else terms is not None and terms.async_scheduling


def _warmup_note(spec: RunSpec) -> list[str]:
    if not spec.warmup_s:
        return []
    return [f"arrivals of the first {spec.warmup_s:g} s are left out of means and percentiles, and of nothing else"]


def _check(spec: RunSpec, measured: MeasuredRun) -> None:
    if spec.horizon_s is not None:
        raise ConfigError("a comparison with a measured run needs all its requests answered: leave horizon_s out")
    if spec.definitions != "vllm":
        raise ConfigError(
            f"definitions {spec.definitions!r} need the end of each prompt and the time of each token, which the file "
            "of a measured run does not have; use vllm"
        )
    longest = min(group.max_model_len for group in groups_of(spec))
    too_long = ints(measured.requests, "prompt_tokens") + ints(measured.requests, "output_tokens") > longest
    if too_long.any():
        row = measured.requests.iloc[int(np.argmax(too_long))]
        raise ConfigError(
            f"{measured.file.source}: row {row['line']}: request {row['request_id']} has a prompt of "
            f"{row['prompt_tokens']} tokens and an answer of {row['output_tokens']}, but the simulated model takes "
            f"{longest} together ({int(too_long.sum())} such "
            "requests); raise it with --set engine.max_model_len=..., as the measured server took them"
        )


def check_finished(live: Result, simulated: Result) -> None:
    """Raise ConfigError, naming the first, unless every measured request finished with as many tokens."""
    ours = simulated.requests.set_index("id").reindex(live.requests["id"])
    same = (ours["status"] == "finished").to_numpy() & (_generated(ours) == ints(live.requests, "generated"))
    if same.all():
        return
    at = int(np.argmin(same))
    row, theirs = live.requests.iloc[at], ours.iloc[at]
    why = theirs["reject_reason"] or "no reason given"
    raise ConfigError(
        f"request {row['request_id']} (row {row['line']}) was measured with {row['generated']} tokens but is "
        f"{theirs['status']} in the simulation with {theirs['generated']}: {why} "
        f"({int((~same).sum())} such requests); give the engine what the server had (engine.num_blocks, "
        "engine.max_model_len, the scheduler's options)"
    )


def _generated(table: pd.DataFrame) -> Ints:
    """Generated tokens (rows,), 0 where a row is missing."""
    return np.asarray(table["generated"].fillna(0), dtype=np.int64)


def _pace(spec: RunSpec, measured: MeasuredRun, scheduler: Any) -> tuple[Pace | None, list[str]]:
    """The pace, if one replica served all, and what is to be said about it."""
    if spec.cluster.replicas > 1:
        return None, ["iterations are not looked at: with several replicas it is not known who decoded together"]
    pace = pace_of(measured.requests, groups_of(spec, scheduler)[0].calibration)
    notes = []
    if not measured.scheduled:
        notes.append(
            "TTFT is not split into queueing and prefill, and iterations are looked at only while nobody waits: the "
            "file has no scheduled_s"
        )
    if pace.contradictions:
        notes.append(
            f"{pace.contradictions} requests contradict one token an iteration (speculative decoding? preemptions?): "
            "do not trust the table of iterations"
        )
    return pace, notes


def _counterfactuals(
    spec: RunSpec, pace: Pace | None, live: Result, workload: Workload, scheduler: Any
) -> tuple[Counterfactual, ...]:
    factor = None if pace is None or pace.contradictions else pace.batch_factor
    if factor is None:
        return ()
    again = simulate_at(spec, constant(factor), scheduler, workload)
    return (Counterfactual(AT_MEASURED_PACE, factor, compare(live, again)),)
