# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # How much more load can deadlines carry? Niyama's figures 7, 8, 10 and 11
#
# Niyama (QoServe, arXiv 2503.22562) serves three tiers on one replica: a third of the requests want their first token
# within 6 s, a third their last within 600 s, a third within 1,800 s. Its scripts search the highest rate at which at
# most 1 % of any tier is late, for first come first served (fcfs), earliest deadline first (edf) and Niyama's own
# policy (deadline: hybrid priority, eager relegation, dynamic chunks). All are the same scheduler in different modes.
#
# The study used the Azure traces of 2024, a week long, which are not at hand: the lengths here are those of the 2023
# traces (shipped as statistical twins) and of ShareGPT. Their mean lengths differ, so rates cannot be compared; the
# ratios between the policies can. `--trace FILE` takes another file for the Azure code workload.

# %%
import copy
from dataclasses import replace

import numpy as np
import pandas as pd

from llmsim import simulate
from llmsim.reports import plots
from llmsim.spec.run_spec import load_runs, put
from llmsim.studies.experiment import Published, finish, options, progress_bar, run_of, size, write_csv
from llmsim.sweep import sweep, workers
from llmsim.traces.workload import build_workload

NAME = "03_niyama"
given = options("Niyama's figures 7, 8, 10 and 11")
run = run_of(NAME)
CODE = given.trace or "azure-code"


def niyama(mode, chunk=256, threshold=0.05, alpha=0.008, outputs=15):
    """The scheduler as the study's scripts start it, with the faults of the original (see the class)."""
    return (
        f"niyama,mode={mode},chunk_size={chunk},execution_threshold={threshold},execution_threshold_batched=0.4,"
        f"hybrid_prioritization_param={alpha},output_len_pred={outputs},largest_slack_first=true,stale_heap=true"
    )


def late(result):
    """Percent of each tier past its deadline, unanswered ones included."""
    classes = result.summary["slo"]["classes"]
    return {f"late_{name}_pct": 100 * (1 - found["attainment"]) for name, found in classes.items()}


TIERS = ["late_interactive_pct", "late_batch-600s_pct", "late_batch-1800s_pct"]


def at_one_percent(rates, violations):
    """The study's rule (fig7_cap.py): where the line between the last passing and the first failing rate meets 1 %."""
    last_rate, last = 0.0, 0.0
    for rate, violation in sorted(zip(rates, violations, strict=True)):
        if violation > 1:
            return last_rate + (rate - last_rate) * (1 - last) / (violation - last)
        last_rate, last = rate, violation
    return last_rate


# %% [markdown]
# ## Figure 7: capacity at 1 % violations
# The number of requests decides: deadlines of 600 s and 1,800 s absorb an overload for as long. These are the study's.

# %%
FIG7 = {
    "code": (CODE, size(39000, 1500), 0.05, {
        "fcfs": [2.2, 2.4, 2.6, 2.8], "edf": [3.2, 3.4, 3.6], "deadline": [4.2, 4.5, 4.8, 5.1]}),
    "conversation": ("azure-conv", size(42000, 1500), 0.05, {
        "fcfs": [3.4, 3.6, 3.8, 4.0], "edf": [4.2, 4.5, 4.8, 5.1], "deadline": [5.2, 5.5, 5.8, 6.1]}),
    "ShareGPT": ("sharegpt4", size(18000, 600), 0.055, {
        "fcfs": [1.1, 1.3, 1.5], "edf": [1.7, 1.9, 2.1], "deadline": [1.8, 2.0, 2.2]}),
}  # fmt: skip
frames = []
with workers() as executor, progress_bar("figure 7") as bar:
    for workload, (trace, requests, threshold, grid) in FIG7.items():
        for mode, rates in grid.items():
            mapping = copy.deepcopy(run)
            put(mapping, "workload.trace", trace)
            put(mapping, "workload.num_requests", requests)
            put(mapping, "scheduler", niyama(mode, threshold=threshold))
            frame = sweep(
                mapping, {"workload.arrivals.rate": size(rates, rates[::2])}, late, executor=executor, progress=bar
            )
            frames.append(frame.assign(workload=workload, mode=mode))
fig7 = pd.concat(frames)
fig7["worst_pct"] = fig7[TIERS].max(axis="columns")
write_csv(NAME, "fig7", fig7)
each = fig7.groupby(["workload", "mode"], sort=False)
capacity = pd.Series({key: at_one_percent(group["rate"], group["worst_pct"]) for key, group in each})
capacity = capacity.unstack()[["fcfs", "edf", "deadline"]]
capacity.round(2)

# %%
long = capacity.rename_axis("workload").reset_index().melt("workload", var_name="mode", value_name="rps")
title = "Figure 7: requests per second at 1 % violations, one A100"
figures = [plots.bars(long, "workload", "rps", "mode", title=title, x_title="workload", y_title="requests/s")]
figures[0]

# %% [markdown]
# ## Figure 8: a prefill node
# Conversation prompts with one output token each, chunks of 8,192, no dynamic chunking: the prefill side of a
# disaggregated deployment. Here the study takes the mean of the tiers, and the highest passing rate that was tried.


# %%
def prefill_node(mapping):
    """A run whose requests all have one output token."""
    spec = load_runs(mapping=mapping)[0]
    drawn = build_workload(spec.workload, spec.seed, spec.engine.max_model_len)
    return late(simulate(spec, workload=replace(drawn, output_tokens=np.ones_like(drawn.output_tokens))))


FIG8 = {
    "fcfs": [8.0, 8.4, 8.8, 9.2],
    "edf": [8.6, 9.0, 9.4, 9.8],
    "deadline_no_dynamic_chunking": [9.2, 9.6, 10.0, 10.4],
}
cases = [(mode, rate) for mode, rates in FIG8.items() for rate in size(rates, rates[::3])]
mappings = []
for mode, rate in cases:
    mapping = copy.deepcopy(run)
    for key, value in {
        "workload.trace": "azure-conv",
        "workload.num_requests": size(90000 if mode.startswith("deadline") else 45000, 1500),
        "workload.arrivals.rate": rate,
        "scheduler": niyama(mode, chunk=8192, alpha=0.016, outputs=0),
    }.items():
        put(mapping, key, value)
    mappings.append(mapping)
with workers() as executor:
    found = list((executor.map if executor else map)(prefill_node, mappings))
fig8 = pd.DataFrame([{"mode": mode, "rate": rate, **row} for (mode, rate), row in zip(cases, found, strict=True)])
fig8["mean_pct"] = fig8[TIERS].mean(axis="columns")
write_csv(NAME, "fig8", fig8)
passing = fig8[fig8["mean_pct"] <= 1].groupby("mode", sort=False)["rate"].max()
passing

# %% [markdown]
# ## Figures 10 and 11: latency and violations against the load
# Azure code prompts. Latency is the tier's own: time to the first token for the interactive tier, to the last for the
# others. Short prompts have at most 6,200 tokens.

# %%
LIMIT_S = {"interactive": 6.0, "batch-600s": 600.0, "batch-1800s": 1800.0}


def tiers(result):
    """Latency percentiles and violations of every tier; violations of short and long prompts."""
    table = result.requests
    first = (table["first_token_ns"] - table["arrival_ns"]) / 1e9
    last = (table["finish_ns"] - table["arrival_ns"]) / 1e9
    seconds = first.where(table["slo_class"] == "interactive", last)
    is_late = seconds > table["slo_class"].map(LIMIT_S)
    found = {"late_pct": 100 * np.mean([is_late[table["slo_class"] == tier].mean() for tier in LIMIT_S])}
    for name, chosen in (("short", table["prompt_tokens"] <= 6200), ("long", table["prompt_tokens"] > 6200)):
        found[f"late_{name}_pct"] = 100 * is_late[chosen].mean() if chosen.any() else 0.0
    for tier in LIMIT_S:
        of_tier = table["slo_class"] == tier
        found[f"late_{tier}_pct"] = 100 * is_late[of_tier].mean()
        found[f"p50_{tier}_s"], found[f"p95_{tier}_s"] = seconds[of_tier].quantile([0.5, 0.95])
    return found


mapping = copy.deepcopy(run)
put(mapping, "workload.trace", CODE)
put(mapping, "workload.num_requests", size(30000, 1500))
modes = {niyama(mode): mode for mode in ("fcfs", "srpf", "edf", "deadline")}
RATES = size([1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0], [2.5, 5.5])
with workers() as executor, progress_bar("figures 10 and 11") as bar:
    axes = {"scheduler": list(modes), "workload.arrivals.rate": RATES}
    fig10 = sweep(mapping, axes, tiers, executor=executor, progress=bar)
fig10["mode"] = fig10.pop("scheduler").map(modes)
write_csv(NAME, "fig10_11", fig10)
x = {"x": "rate", "by": "mode", "x_title": "requests per second"}
figures += [
    plots.lines_with_band(
        fig10, y=f"p{q}_{tier}_s", title=f"Figure 10: p{q} latency of {tier}", y_title="s", log_y=True,
        hlines={"deadline": LIMIT_S[tier]}, **x,
    )
    for q in (50, 95) for tier in LIMIT_S
]  # fmt: skip
figures += [
    plots.lines_with_band(fig10, y=f"late{which}_pct", title=f"Figure 11: violations, {what}", y_title="% late", **x)
    for which, what in (
        ("", "mean of the tiers"),
        ("_short", "prompts up to 6,200 tokens"),
        ("_long", "longer prompts"),
    )
]
figures[7]

# %% [markdown]
# ## Published / ours / difference
# Brackets are the rates that the study's scripts try, between which its capacities must lie.

# %%
table = Published()
BRACKETS = {
    "code": ((1.45, 1.9), (2.45, 2.9), (3.55, 4.0), (1.9, 2.8)),
    "conversation": ((2.5, 3.1), (3.2, 3.8), (4.0, 4.6), (1.3, 1.8)),
    "ShareGPT": ((1.1, 1.7), (1.5, 2.1), (1.7, 2.3), (1.0, 2.1)),
}
for workload, (*_, ratios) in BRACKETS.items():
    ratio = capacity.loc[workload, "deadline"] / capacity.loc[workload, "fcfs"]
    inside = "inside" if ratios[0] <= ratio <= ratios[1] else "OUTSIDE"
    table.add(f"fig 7, {workload}: deadline over fcfs", f"{ratios[0]} to {ratios[1]}", f"{ratio:.2f}, {inside}")
for workload, (*each, _) in BRACKETS.items():
    for mode, (low, high) in zip(("fcfs", "edf", "deadline"), each, strict=True):
        ours = capacity.loc[workload, mode]
        inside = "inside" if low <= ours <= high else "other lengths"
        table.add(f"fig 7, {workload}: {mode}, requests/s", f"{low} to {high}", f"{ours:.2f}, {inside}")
for mode, (low, high) in zip(FIG8, ((5.4, 6.0), (6.5, 7.1), (7.0, 7.6)), strict=True):
    table.add(f"fig 8: {mode}, requests/s", f"{low} to {high}", f"{passing.get(mode, 0):.1f}")
if {"fcfs", "deadline_no_dynamic_chunking"} <= set(passing.index):
    ratio = passing["deadline_no_dynamic_chunking"] / passing["fcfs"]
    table.add("fig 8: Niyama over fcfs", f"{7.0 / 6.0:.2f} to {7.6 / 5.4:.2f}", f"{ratio:.2f}")
overload = fig10[fig10["rate"] == max(RATES)].set_index("mode")["late_pct"]
table.add(
    f"fig 11: late at {max(RATES)} requests/s: fcfs, srpf, edf, deadline, %",
    "about ten times fewer than the others",
    ", ".join(f"{overload[mode]:.1f}" for mode in ("fcfs", "srpf", "edf", "deadline")),
)
page = finish(NAME, "Niyama: capacity by deadlines", figures, table)
