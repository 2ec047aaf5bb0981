# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # How often is the verdict on the load wrong, and how many requests does it take?
#
# Every summary says whether the offered load is below, near or above what the policy can serve, or that the run was too
# short to tell (docs/metrics.md). Here each policy's own capacity is measured in a long run, and runs of 50 to 5,000
# requests are offered 0.5 to 3 times of it. Wrong is: "overloaded" or "near saturation" below 0.9, "stable" or "near
# saturation" above 1.1.

# %%
import pandas as pd

from llmsim import load_runs, simulate
from llmsim.reports import plots
from llmsim.studies.experiment import Published, finish, options, run_of, size, write_csv

NAME = "09_load_verdict"
options("errors of the verdict on the load")
run = run_of(NAME)
POLICIES = {
    "vllm_v1": "vllm_v1",
    "vllm_v0": "vllm_v0",
    "sarathi": "sarathi,chunk_size=512",
    "slai": "slai",
    "niyama": "niyama",
    "orca": "orca",
    "faster_transformer": "faster_transformer",
    "dynamic": "dynamic",
}
POLICIES = size(POLICIES, {name: POLICIES[name] for name in ("vllm_v1", "dynamic")})
LOADS = size((0.5, 0.65, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0), (0.5, 0.8, 1.2, 2.0))
RUNS = size({50: 4, 100: 4, 200: 4, 500: 3, 1000: 2, 2000: 2, 5000: 1}, {50: 2, 200: 2, 2000: 1})
VERDICTS = ["stable", "near saturation", "overloaded", "undetermined"]


def serve(scheduler, requests, arrivals, seed=0, trace="sharegpt4", **more):
    """A run of so many requests."""
    workload = run["workload"] | {"trace": trace, "num_requests": requests, "arrivals": arrivals}
    return simulate(load_runs(mapping=run | {"scheduler": scheduler, "workload": workload, "seed": seed, **more})[0])


def capacity_of(scheduler, short, long, **more):
    """Requests that the longer of two runs has more, over the time that it takes longer."""
    at_once = {"kind": "all_at_once"}
    ends = [serve(scheduler, n, at_once, **more).requests["finish_ns"].max() / 1e9 for n in (short, long)]
    return (long - short) / (ends[1] - ends[0])


# %% [markdown]
# ## Capacities
# All requests are there from the beginning, so that the policy never lacks work. The difference of two such runs leaves
# out how they begin and how they end: requests that the longer one has more, over the time that it takes longer.

# %%
capacities = {name: capacity_of(line, *size((2000, 6000), (1000, 2000))) for name, line in POLICIES.items()}
table_of_capacities = pd.DataFrame({"policy": list(capacities), "requests_per_s": list(capacities.values())})
write_csv(NAME, "capacities", table_of_capacities)
table_of_capacities.round(3)

# %% [markdown]
# ## Verdicts
# Poisson arrivals; a seed is a workload, the same for every policy and load.

# %%
rows = []
for policy, capacity in capacities.items():
    for n, seeds in RUNS.items():
        for load in LOADS:
            for seed in range(seeds):
                arrivals = {"kind": "poisson", "rate": load * capacity}
                judged = serve(POLICIES[policy], n, arrivals, 1000 * n + seed).summary["saturation"]
                needed = judged["evidence"].get("requests_needed")
                rows.append({"policy": policy, "requests": n, "load": load, "seed": seed,
                             "verdict": judged["verdict"], "requests_needed": needed})  # fmt: skip
runs = pd.DataFrame(rows)


def shares(frame, by):
    """Per cent of each verdict in each group."""
    counts = frame.groupby([*by, "verdict"], sort=False).size().unstack("verdict", fill_value=0)
    counts = counts.reindex(columns=VERDICTS, fill_value=0)
    return (100 * counts.div(counts.sum(axis=1), axis=0)).assign(runs=counts.sum(axis=1)).reset_index()


by_load = shares(runs, ["requests", "load"])
by_policy = shares(runs, ["policy", "requests", "load"])
write_csv(NAME, "by_load", by_load)
write_csv(NAME, "by_policy", by_policy)
by_load.round(1)

# %% [markdown]
# ## Errors

# %%
below, above = runs["load"] < 0.9, runs["load"] > 1.1
calls_it_more = runs["verdict"].isin(["overloaded", "near saturation"])
calls_it_less = runs["verdict"].isin(["stable", "near saturation"])
runs["wrong"] = (below & calls_it_more) | (above & calls_it_less)
outside = runs[below | above]
long = runs[(runs["requests"] >= 2000) & ((runs["load"] <= 0.8) | (runs["load"] >= 1.2))]
table = Published()


def add(what, allowed, frame, hits):
    table.add(f"{what}: per cent of {len(frame)} runs", f"at most {allowed}", f"{100 * hits.mean():.2g}")


add("wrong outside 0.9 to 1.1", 5, outside, outside["wrong"])
for policy, part in outside.groupby("policy", sort=False):
    add(f"wrong outside 0.9 to 1.1, {policy}", 5, part, part["wrong"])
sure = runs[runs["load"] >= 1.2]
add("stable at a load of 1.2 or more", 0, sure, sure["verdict"] == "stable")
add("undetermined with 2,000 requests or more, at 0.8 and below or 1.2 and above", 10, long,
    long["verdict"] == "undetermined")  # fmt: skip
errors = (
    outside.groupby(["policy", "requests"], sort=False)
    .agg(runs=("wrong", "size"), wrong=("wrong", "sum"),
         undetermined_pct=("verdict", lambda v: 100 * (v == "undetermined").mean()))
    .reset_index()
)  # fmt: skip
write_csv(NAME, "errors", errors)
errors.round(0)

# %% [markdown]
# ## Elsewhere
# Other traces, cards and arrivals, and several replicas, by which no constant of the rule was chosen.

# %%
RTX, POISSON = {"calibration": "rtx-6000-ada/mistral-7b"}, {"kind": "poisson"}
ELSEWHERE = {
    "azure-conv": ("vllm_v1", {"trace": "azure-conv"}, POISSON),
    "azure-code, chunks of 64": ("sarathi,chunk_size=64", {"trace": "azure-code"}, POISSON),
    "shortest prompt first": ("sarathi,chunk_size=512,order=spf", RTX, POISSON),
    "four replicas": ("vllm_v0", RTX | {"cluster": {"replicas": 4, "router": "least_requests"}}, POISSON),
    "constant arrivals": ("sarathi", RTX | {"trace": "azure-conv"}, {"kind": "constant"}),
    "clustered arrivals": ("vllm_v1", {}, {"kind": "gamma", "burstiness": 0.25}),
}
ELSEWHERE = size(ELSEWHERE, {"clustered arrivals": ELSEWHERE["clustered arrivals"]})
rows = []
for name, (line, more, arrivals) in ELSEWHERE.items():
    capacity = capacity_of(line, *size((1500, 4000), (1000, 2000)), **more)
    for n, seeds in size({100: 4, 500: 3, 2000: 3}, {100: 1, 2000: 1}).items():
        for load in (0.5, 0.8, 1.2, 1.5, 3.0):
            for seed in range(seeds):
                result = serve(line, n, arrivals | {"rate": load * capacity}, 9000 + n + seed, **more)
                right = "stable" if load < 1 else "overloaded"
                rows.append({"set-up": name, "requests": n, "load": load, "right": right,
                             "verdict": result.summary["saturation"]["verdict"]})  # fmt: skip
elsewhere = pd.DataFrame(rows)
elsewhere["wrong"] = ~elsewhere["verdict"].isin(["undetermined"]) & (elsewhere["verdict"] != elsewhere["right"])
elsewhere["undetermined"] = elsewhere["verdict"] == "undetermined"
by_setup = (
    elsewhere.groupby(["set-up", "requests"], sort=False)
    .agg(runs=("wrong", "size"), wrong=("wrong", "sum"), undetermined=("undetermined", "sum"))
    .reset_index()
)
write_csv(NAME, "elsewhere", by_setup)
add("elsewhere: wrong", 5, elsewhere, elsewhere["wrong"])
enough = elsewhere[elsewhere["requests"] >= 2000]
add("elsewhere: undetermined with 2,000 requests", 10, enough, enough["undetermined"])
by_setup

# %%
told = by_load[by_load["load"].isin([0.5, 0.8, 1.2, 2.0])].assign(told=lambda f: 100 - f["undetermined"])
told["load"] = told["load"].map("load {}".format)
titles = {"title": "Runs that are long enough to tell", "x_title": "requests", "y_title": "% of runs with a verdict"}
figure = plots.lines_with_band(told, "requests", "told", "load", log_x=True, **titles)
figure

# %%
page = finish(NAME, "Load verdict", ["<h2>Verdicts</h2>", by_load.round(1), figure, "<h2>Errors</h2>", errors,
                      "<h2>Elsewhere</h2>", by_setup], table)  # fmt: skip
