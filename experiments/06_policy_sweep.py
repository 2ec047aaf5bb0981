# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Does my scheduling policy beat the built-in ones, and at which load?
#
# Write a policy in one cell, sweep it against the built-ins over load and burstiness, and read the answer off a figure
# with confidence bands. Copy this notebook and change the cell below.

# %%
from collections import deque
from dataclasses import dataclass

import pandas as pd

from llmsim import ContinuousBatching
from llmsim.reports import plots
from llmsim.studies.experiment import (
    Published,
    finish,
    interval,
    options,
    progress_bar,
    run_of,
    size,
    with_bands,
    write_csv,
)
from llmsim.sweep import sweep, workers
from llmsim.testing import check_scheduler
from llmsim.units import SECOND

NAME = "06_policy_sweep"
options("a policy against the built-in ones")
run = run_of(NAME)

# %% [markdown]
# ## The policy
# Shortest prompt first makes most users happy and starves the others. This one lets waiting pay: a prompt's rank is its
# length less `tokens_per_second` for every second it has waited, so that nobody is passed over for ever.


# %%
@dataclass
class AgeingShortestPromptFirst(ContinuousBatching):
    """Admit the prompt with the fewest tokens, less a credit for the time it has waited."""

    tokens_per_second: float = 500.0

    def order_waiting(self, now):
        """Equal ranks keep the order of arrival."""
        credit = self.tokens_per_second / SECOND

        def rank(request):
            return request.prefill_tokens - credit * (now - request.arrival_ns), request.id

        self.waiting = deque(sorted(self.waiting, key=rank))


check_scheduler(AgeingShortestPromptFirst)  # conserves requests and memory, knows no output length, is deterministic

# %% [markdown]
# ## The sweep
# Every policy serves the same requests at a point; seeds make the confidence bands. The first 60 s of each run are
# warm-up and left out. Policies that are objects go to the worker processes as they are.

# %%
POLICIES = [
    "sarathi,chunk_size=512",
    "sarathi,chunk_size=512,order=spf",
    "vllm_v1",
    AgeingShortestPromptFirst(),
]
LABELS = ["fcfs (Sarathi)", "shortest prompt first", "vLLM v1", "ageing shortest prompt first"]


def measure(result):
    """Median and tail of TTFT, the tail of TBT, and the share of requests that met both limits."""
    summary = result.summary
    return {
        "median_ttft_s": summary["median_ttft_ms"] / 1e3,
        "p99_ttft_s": summary["p99_ttft_ms"] / 1e3,
        "p99_tbt_s": summary["p99_itl_ms"] / 1e3,
        "attainment_pct": 100 * summary["slo"]["attainment"],
    }


axes = {
    "scheduler": POLICIES,
    "workload.arrivals.rate": size([1.0, 1.2, 1.4, 1.6, 1.8], [1.2, 1.6]),
    "workload.arrivals.burstiness": [1.0, 0.25],  # 1: Poisson; 0.25: gaps with twice the variation
    "seed": list(range(size(8, 2))),
}
mapping = run | {"warmup_s": 60.0, "workload": run["workload"] | {"num_requests": size(1500, 300)}}
with workers() as executor, progress_bar("policy sweep") as bar:
    frame = sweep(mapping, axes, measure, executor=executor, progress=bar)
points = len(frame) // len(POLICIES)
frame["policy"] = [label for label in LABELS for _ in range(points)]
frame["arrivals"] = frame["burstiness"].map({1.0: "Poisson", 0.25: "bursty"})
VALUES = ["median_ttft_s", "p99_ttft_s", "p99_tbt_s", "attainment_pct"]
bands = with_bands(frame, ["policy", "arrivals", "rate"], VALUES)
write_csv(NAME, "bands", bands)
bands.head()

# %% [markdown]
# ## The answer

# %%
TITLES = {
    "median_ttft_s": ("Median TTFT", "s", True),
    "p99_ttft_s": ("p99 TTFT: who pays for the short prompts", "s", True),
    "attainment_pct": ("Requests with TTFT below 1 s and 0.1 s a token", "%", False),
}
figures = []
for arrivals in ("Poisson", "bursty"):
    for value, (title, unit, log_y) in TITLES.items():
        figures.append(
            plots.lines_with_band(
                bands[bands["arrivals"] == arrivals],
                "rate",
                value,
                "policy",
                f"{value}_low",
                f"{value}_high",
                title=f"{title}, {arrivals} arrivals",
                x_title="requests per second",
                y_title=unit,
                log_y=log_y,
            )
        )
figures[1]

# %% [markdown]
# Seeds are common to all policies, so differences are taken seed by seed: their intervals are much narrower than the
# bands above.

# %%
rows = []
for (arrivals, rate), group in frame.groupby(["arrivals", "rate"], sort=False):
    pairs = group.pivot(index="seed", columns="policy", values="p99_ttft_s")
    change = 100 * (pairs["ageing shortest prompt first"] / pairs["shortest prompt first"] - 1)
    found = interval(change)
    better = "better" if found.high < 0 else "worse" if found.low > 0 else "no difference shown"
    rows.append({"arrivals": arrivals, "req/s": rate, "p99 TTFT against spf, %": str(found), "ageing is": better})
answer = pd.DataFrame(rows)
write_csv(NAME, "answer", answer)
answer

# %%
table = Published()
for row in rows:
    what = f"p99 TTFT of ageing against spf, {row['arrivals']}, {row['req/s']} req/s, %"
    table.add(what, "your own idea", f"{row['p99 TTFT against spf, %']}: {row['ageing is']}")
page = finish(NAME, "A policy against the built-in ones", [*figures, answer], table)
