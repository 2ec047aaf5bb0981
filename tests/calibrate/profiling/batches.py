"""Fit tables with known answers: a plan's cases priced by a known model, with noise and strays on request."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.profiling.plan import Plan, default_plan
from llmsim.costs.base import CostModel

PLAN = default_plan(max_model_len=8192, kv_tokens=600_000, max_tokens=4096, max_seqs=256, cases=160)


def priced(
    model: CostModel, *, noise: float = 0.0, strays: float = 0.0, seed: int = 1, plan: Plan = PLAN
) -> tuple[pd.DataFrame, list[int]]:
    """The fit table of the plan where batches cost `model`, and which rows are strays.

    Times scatter by `noise` (relative, normal); the share `strays` takes 1.5 to 3 times as long.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for case in plan.cases:
        work = case.work()
        seconds = model.seconds(work) * np.exp(noise * rng.standard_normal())
        rows.append((str(case), *(getattr(work, name) for name in SUMS), seconds, 1.0, 7))
    table = pd.DataFrame(rows, columns=["case", *SUMS, "seconds", "spread_pct", "repeats"])
    stray = rng.choice(len(table), round(strays * len(table)), replace=False)
    table.loc[stray, "seconds"] *= rng.uniform(1.5, 3.0, len(stray))
    return table, sorted(int(row) for row in stray)
