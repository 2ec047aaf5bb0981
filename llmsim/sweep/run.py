"""sweep_grid(file) -> Sweep: plan, run what is not there yet, and make the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from llmsim.errors import ConfigError, SaveError, SweepError
from llmsim.runs.facts import facts_of, shared_facts, told
from llmsim.runs.labels import scheduler_label
from llmsim.sweep.drive import drive
from llmsim.sweep.executors import pool
from llmsim.sweep.grid import load_grid
from llmsim.sweep.points import Plan, Task, plan_of, shard_of
from llmsim.sweep.store import Store
from llmsim.sweep.tables import FAILED, mean_table, result_table
from llmsim.sweep.warnings import what_runs_say
from llmsim.sweep.worker import Outcome

Progress = Callable[[int, int], None]
"""Called with (runs done, runs to do now); runs that were on disk already are in neither."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found: `frame`, a row a run, and `means`, a row a point and figure (llmsim.sweep.tables).

    `ran` and `reused` count the runs of this call. `missing` are those of no shard yet. `warnings` are sentences,
    `setting` is what all runs have in common (llmsim.runs.facts).
    """

    plan: Plan
    frame: pd.DataFrame = field(repr=False)
    means: pd.DataFrame = field(repr=False)
    folder: Path | None
    ran: int
    reused: int
    missing: int
    warnings: tuple[str, ...] = ()
    setting: str = ""

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of the runs that failed."""
        return self.frame[self.frame["status"] == FAILED]

    def text(self, figures: Sequence[str] = ()) -> str:
        """For a terminal; `figures` are columns of `frame` in place of the usual ones. ConfigError for unknown ones."""
        from llmsim.sweep.text import sweep_text

        return sweep_text(self.plan, self.frame, self.means, figures, self.setting)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from llmsim.sweep.text import sweep_html

        return sweep_html(self.plan, self.frame, self.means, self.setting)


def sweep_grid(
    grid: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    dask: str | None = None,
    executor: Executor | None = None,
    shard: tuple[int, int] | None = None,
    continue_on_error: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Sweep:
    """Run a grid (a file, or a mapping as it holds one) and return its tables.

    With `out`, a folder, every run is kept there as soon as it is done, runs that are there are not run again, and the
    tables are written once all are done. Runs go to `workers` processes (None: one a core; 1: this one), to the `dask`
    scheduler of that address, or to any `executor`: the tables are the same. `shard` (i, n), i from 1, runs a part.
    Raises ConfigError, TraceError or CalibrationError before anything runs, and SweepError for the first run that
    fails, unless `continue_on_error` makes it a row.
    """
    plan, tasks = plan_of(load_grid(grid, overrides))
    store = Store(out)
    warnings = changes(store, plan)
    store.save_plan(plan)
    mine = shard_of(tasks, shard)
    warnings += store.read(plan.all_keys())
    todo = [task for task in mine if not store.done(task.key)]
    if todo:
        with pool(workers, dask, executor) as where:
            warnings += [where.warning] if where.warning else []
            if progress is not None:
                progress(0, len(todo))
            failure = drive(todo, where, _keeper(store, len(todo), progress), continue_on_error=continue_on_error)
        if failure is not None:
            raise SweepError(stopped(plan, store, failure))
    return finished(plan, store, ran=len(todo), reused=len(mine) - len(todo), warnings=warnings)


def changes(store: Store, plan: Plan) -> list[str]:
    """What to tell where the folder holds another plan: runs that did not change are used again."""
    old = store.plan()
    if old is None or old == plan:
        return []
    now, before = set(plan.all_keys()), set(old.all_keys())
    if now == before:
        return []
    return [
        f"the grid, its base or a file of theirs changed since {store.folder} was made: {len(now & before)} of "
        f"{len(now)} runs are as they were, {len(now - before)} are new, {len(before - now)} left it"
    ]


def _keeper(store: Store, total: int, progress: Progress | None) -> Callable[[Outcome], None]:
    done = 0

    def keep(outcome: Outcome) -> None:
        nonlocal done
        store.save(outcome)
        done += 1
        if progress is not None:
            progress(done, total)

    return keep


def finished(plan: Plan, store: Store, *, ran: int, reused: int, warnings: Iterable[str] = ()) -> Sweep:
    """The tables of what the store knows; on disk they are written once no run is missing.

    SaveError, with the sweep, if they cannot be.
    """
    frame = result_table(plan, store.get)
    means = mean_table(plan, frame)
    missing = sum(store.get(key) is None for key in plan.all_keys())
    known = [outcome for keys in plan.keys if (outcome := store.get(keys[0])) is not None]
    setting = told(shared_facts([_facts(outcome) for outcome in known])) if known else ""
    warnings = (*warnings, *what_runs_say(frame))
    found = Sweep(plan, frame, means, store.folder, ran, reused, missing, warnings, setting)
    if not missing:
        try:
            store.save_tables(frame, means)
        except SaveError as error:
            error.result = found
            raise
    return found


def _facts(outcome: Outcome) -> dict[str, str]:
    """The facts of a run, its policy among them."""
    engine = {k.removeprefix("engine."): v for k, v in outcome.figures.items() if k.startswith("engine.")}
    policy = {"policy": scheduler_label(outcome.spec["scheduler"])}
    return policy | facts_of(outcome.spec, summary={"engine": engine})


def stopped(plan: Plan, store: Store, failure: Outcome) -> str:
    """The sentence of a sweep that stopped: which run failed, what is kept, and how to go on."""
    place = next((p, s) for p, keys in enumerate(plan.keys) for s, k in zip(plan.seeds, keys, strict=True)
                 if k == failure.key)  # fmt: skip
    keys = plan.all_keys()
    done = sum(store.done(key) for key in keys)
    kept = f"kept in {store.folder}" if store.folder is not None else "lost, as no folder (out) was given"
    return (
        f"the run {plan.words(*place)} failed: {failure.error}; {done} of {len(keys)} runs are done and {kept}. Change "
        "the grid, or go on past failures with --continue-on-error (continue_on_error=True)"
        + (f"\n{failure.trace}" if failure.trace else "")
    )


def merge_sweeps(folders: Sequence[str | Path], out: str | Path) -> Sweep:
    """The runs of several folders (shards of one grid) together in `out`, with its tables.

    Raises ConfigError where a folder holds no sweep or another one, SweepError where runs are missing in all of them.
    """
    if not folders:
        raise ConfigError("there is nothing to merge; name the folders of the shards")
    stores = [Store.existing(folder) for folder in folders]
    plans = [store.plan() for store in stores]
    plan = plans[0]
    assert plan is not None
    for folder, other in zip(folders, plans, strict=True):
        if other != plan:
            raise ConfigError(
                f"{folder} holds another sweep than {folders[0]} (grid, base, data or version differ); shards of one "
                "sweep come from the same grid file and the same data"
            )
    target = Store(out)
    warnings = changes(target, plan)
    target.save_plan(plan)
    keys = plan.all_keys()
    for store in (target, *stores):
        warnings += store.read(keys)
    for key in keys:
        known = [outcome for store in (target, *stores) if (outcome := store.get(key)) is not None]
        best = next((outcome for outcome in known if not outcome.failed), known[0] if known else None)
        if best is not None and best is not target.get(key):
            target.save(best)
    merged = finished(plan, target, ran=0, reused=len(keys), warnings=dict.fromkeys(warnings))
    if merged.missing:
        raise SweepError(
            f"{merged.missing} of {len(keys)} runs are in none of these folders; what is there was copied to {out}. "
            "Run the shards that are missing, and merge again"
        )
    return merged


def first_run(plan: Plan, store: Store, tasks: Sequence[Task]) -> float:
    """Seconds that a run takes: the mean of those on disk, else the first task's, which is run here and kept.

    0 for a shard without tasks.
    Raises SweepError if that run fails.
    """
    from llmsim.sweep.worker import run_task

    known = [outcome.seconds for task in tasks if (outcome := store.get(task.key)) and not outcome.failed]
    if known or not tasks:
        return sum(known) / max(1, len(known))
    outcome = run_task(tasks[0])
    store.save(outcome)
    if outcome.failed:
        raise SweepError(stopped(plan, store, outcome))
    return outcome.seconds
