"""How long a sweep will take, before it is run: its points, and the time of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmsim.sweep.executors import pool
from llmsim.sweep.grid import load_grid
from llmsim.sweep.points import Plan, plan_of, shard_of
from llmsim.sweep.run import changes, first_run
from llmsim.sweep.store import Store

MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A sweep to come: `todo` of `runs` are left, `seconds` is what one takes, `slots` how many run at once."""

    plan: Plan
    runs: int
    todo: int
    seconds: float
    slots: int
    where: str
    folder: Path
    warnings: tuple[str, ...]

    @property
    def total_seconds(self) -> float:
        """Wall time of what is left, if all runs take as long."""
        return self.todo * self.seconds / self.slots

    def text(self) -> str:
        """The points, their number, and the time."""
        lines = []
        for point, cells in enumerate(self.plan.points[:MOST_POINTS]):
            told = ", ".join(f"{field}={value}" for field, value in cells.items()) or "the base"
            lines.append(f"{point:>4}  {told}")
        if len(self.plan.points) > MOST_POINTS:
            lines.append(f"      ... and {len(self.plan.points) - MOST_POINTS} more points")
        seeds = ", ".join(map(str, self.plan.seeds[:20])) + (", ..." if len(self.plan.seeds) > 20 else "")
        lines += [
            "",
            f"{len(self.plan.points)} points x {len(self.plan.seeds)} seeds ({seeds}): {self.runs} runs, "
            f"{self.todo} to do",
            *(f"warning: {line}" for line in self.warnings),
            f"about {duration(self.total_seconds)} on {self.where}: a run took {self.seconds:.2f} s (it is kept in "
            f"{self.folder}); heavier loads and more replicas take longer",
        ]
        return "\n".join(lines)


def estimate(
    grid: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
    workers: int | None = None,
    dask: str | None = None,
) -> Estimate:
    """Plan the sweep and run its first run, unless some are in `out` already, whose mean time then counts.

    Raises what `sweep_grid` raises.
    """
    plan, tasks = plan_of(load_grid(grid, overrides))
    mine = shard_of(tasks, shard)
    store = Store(out)
    warnings = [*changes(store, plan), *store.read(plan.all_keys())]
    seconds = first_run(plan, store, mine)
    todo = sum(not store.done(task.key) for task in mine)
    with pool(workers, dask) as where:
        slots = where.slots or 1
        return Estimate(plan, len(mine), todo, seconds, slots, where.words, Path(out), tuple(warnings))


def duration(seconds: float) -> str:
    """45 s, 12 min, 3.4 h: two digits are more than an estimate holds."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
