"""Many runs at once: cases or a grid in, one measured value a run out, in order, on any concurrent.futures.Executor.

`workers(n)` gives processes that need no `if __name__ == "__main__"` and take policies and functions written in a
notebook cell. Traces travel by path, results as what `measure` makes of them.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from llmsim.errors import ConfigError
from llmsim.runs.labels import scheduler_label
from llmsim.runs.orphans import end_with
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import load_runs, put

if TYPE_CHECKING:
    from llmsim.runs.results import Result
    from llmsim.spec.run_spec import RunSpec

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with (runs done, runs in all)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run: a spec, and optionally a policy object in place of the spec's scheduler."""

    spec: RunSpec
    scheduler: Any = None


def summary_of(result: Result) -> dict[str, Any]:
    """The default measure: the run's summary."""
    return result.summary


def run_many(
    cases: Sequence[RunSpec | Case],
    measure: Callable[[Result], T] = summary_of,  # type: ignore[assignment]
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[T]:
    """`measure(simulate(case))` of every case, in the order of the cases; one after the other without an executor.

    Cases with the same workload and seed serve the very same requests. The first error ends the sweep and is
    raised; runs that have not begun are cancelled.
    """
    todo = [case if isinstance(case, Case) else Case(case) for case in cases]
    if executor is None:
        values = []
        for case in todo:
            values.append(_run(case, measure))
            if progress is not None:
                progress(len(values), len(todo))
        return values
    futures = [executor.submit(_run, case, measure) for case in todo]
    try:
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            if progress is not None:
                progress(done, len(futures))
    except Exception:  # after an interruption the workers are killed instead
        for future in futures:
            future.cancel()
        raise
    return [future.result() for future in futures]


def _run(case: Case, measure: Callable[[Result], T]) -> T:
    return measure(simulate(case.spec, scheduler=case.scheduler))


@contextmanager
def workers(count: int | None = None) -> Iterator[Executor | None]:
    """`count` worker processes for the length of a `with` block (None: one a core); None if one is enough.

    They end with this process, even if it is killed. Raises ConfigError for a count below 1.
    """
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 1:
        raise ConfigError(f"workers must be at least 1 but got {count}")
    if count == 1:
        yield None
        return
    from loky import ProcessPoolExecutor

    executor = ProcessPoolExecutor(max_workers=count, initializer=end_with, initargs=(os.getpid(),))
    try:
        yield executor
    except (KeyboardInterrupt, SystemExit):
        executor.shutdown(wait=False, kill_workers=True)  # no future may be cancelled: loky would trip over it
        raise
    except BaseException:
        executor.shutdown(wait=True)
        raise
    executor.shutdown(wait=True)  # runs in flight end


def sweep(
    mapping: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    measure: Callable[[Result], Mapping[str, Any]],
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """A full grid over a run: one row a combination, with the axes' values and what `measure` found.

    `mapping` is a run as YAML holds it (`config.read_run`), `axes` dotted keys of it and their values; the last axis
    changes fastest. A policy object is named by its label. The column of an axis is the last part of its key.
    """
    names = [key.rpartition(".")[2] for key in axes]
    combinations = list(itertools.product(*axes.values()))
    cases = [_case(mapping, dict(zip(axes, values, strict=True))) for values in combinations]
    measured = run_many(cases, measure, executor=executor, progress=progress)
    rows = [
        {**dict(zip(names, map(_plain, values), strict=True)), **found}
        for values, found in zip(combinations, measured, strict=True)
    ]
    return pd.DataFrame(rows, columns=None if rows else names)


def _case(mapping: Mapping[str, Any], values: dict[str, Any]) -> Case:
    """The run with these keys set; a policy object stands beside the spec."""
    changed = copy.deepcopy(dict(mapping))
    policy = values.get("scheduler")
    described = policy is None or isinstance(policy, str | Mapping)
    for key, value in values.items():
        if key != "scheduler" or described:
            put(changed, key, value)
    return Case(load_runs(mapping=changed)[0], None if described else policy)


def _plain(value: Any) -> Any:
    """A value as a cell: policies by their label."""
    return value if isinstance(value, str | int | float | bool) or value is None else scheduler_label(value)
