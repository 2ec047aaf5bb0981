"""One run where it is run: check that this machine has what the sweep was planned with, simulate, keep the figures.

Errors do not travel as exceptions, which not every executor could carry, but as an outcome.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llmsim.errors import ConfigError, LlmsimError
from llmsim.runs.manifest import versions
from llmsim.runs.replica_groups import groups_of, limits_of
from llmsim.runs.simulation import Run
from llmsim.runs.streaming import simulate_stream
from llmsim.spec import strict
from llmsim.sweep.inputs import check
from llmsim.traces.spec import WorkloadSpec
from llmsim.traces.workload import Workload, build_workload

if TYPE_CHECKING:
    from llmsim.sweep.points import Task

STREAMED_FROM = 100_000
"""Requests of a run from which on its tables are not kept whole: workers side by side share the memory."""
NO_FIGURES = ("name", "scheduler", "seed", "definitions")
"""What a summary says of its spec: the sweep's own columns say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run. `figures` are the summary, flat (`kv.mean_share`); empty where it failed.

    `error` is 'Type: message', `trace` the traceback of an error that is no LlmsimError. `lengths` and `requests` are
    digests of the workload: token counts, and those with the arrivals and classes. `seconds` is the wall time.
    """

    key: str
    seed: int
    spec: dict[str, Any]
    figures: dict[str, Any]
    error: str = ""
    trace: str = ""
    lengths: str = ""
    requests: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether there are no figures."""
        return bool(self.error)


def run_task(task: Task) -> Outcome:
    """Simulate; any error but an interruption becomes a failed outcome."""
    began = time.perf_counter()
    figures: dict[str, Any] = {}
    lengths = requests = error = trace = ""
    try:
        if (mine := versions()["llmsim"]) != task.version:
            raise ConfigError(
                f"{socket.gethostname()} runs llmsim {mine} but the sweep was planned with {task.version}; install the "
                "same version on every machine"
            )
        check(task.digests)
        workload = _workload(task)
        summary = _summary(task, workload)
        summary["notes"] = [*summary["notes"], *workload.description.get("notes", ())]
        figures = flat(summary)
        lengths, requests = _digests(workload)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
        trace = "" if isinstance(caught, LlmsimError) else traceback.format_exc()
    return Outcome(
        key=task.key, seed=task.seed, spec=strict.dump(task.spec), figures=figures, error=error, trace=trace,
        lengths=lengths, requests=requests, seconds=time.perf_counter() - began,
    )  # fmt: skip


def _summary(task: Task, workload: Workload) -> dict[str, Any]:
    """The same either way; long runs need no tables in memory."""
    if len(workload) >= STREAMED_FROM:
        return simulate_stream(task.spec, workload=workload).summary
    run = Run(task.spec, workload=workload)
    run.serve()
    return run.summary(run.tables())


def flat(summary: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested figures under dotted names; notes as one text, other lists (violations, calibrations) left out."""
    figures: dict[str, Any] = {}
    for name, value in summary.items():
        if not above and name in NO_FIGURES:
            continue
        if isinstance(value, Mapping):
            figures |= flat(value, f"{above}{name}.")
        elif name == "notes":
            figures[above + name] = " | ".join(value)
        elif not isinstance(value, list | tuple):
            figures[above + name] = value
    return figures


def _workload(task: Task) -> Workload:
    """The workload of the task; variants of a seed that serve the same requests share what was read and drawn."""
    longest = tuple(limits_of(groups_of(task.spec)).items())
    trace = task.digests.get(f"trace {task.spec.workload.trace}", "")
    return _built(json.dumps(strict.dump(task.spec.workload)), trace, task.seed, longest)


@lru_cache(maxsize=2)
def _built(text: str, trace: str, seed: int, longest: tuple[tuple[str, int], ...]) -> Workload:
    """`text` is the workload's spec as JSON; `trace`, its digest, is there so that a changed file is read again."""
    return build_workload(strict.load(WorkloadSpec, json.loads(text), "the sweep", "workload"), seed, dict(longest))


def _digests(workload: Workload) -> tuple[str, str]:
    """Of the lengths alone, and of the whole workload."""
    lengths = hashlib.sha256(workload.prompt_tokens.tobytes() + workload.output_tokens.tobytes())
    whole = lengths.copy()
    whole.update(workload.arrival_ns.tobytes() + workload.slo_index.tobytes())
    whole.update(repr((workload.slo_classes, workload.max_concurrency)).encode())
    return lengths.hexdigest()[:16], whole.hexdigest()[:16]
