# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Why is the naive scheduler's TTFT the lowest at high load?
#
# The LLM Scheduler Benchmark Suite compares a naive batcher, a dynamic batcher and vLLM's continuous batching, ten
# requests outstanding, 25, 50 and 99 in all. Its README reports a surprise: the naive scheduler's mean TTFT falls from
# 0.70 s to 0.18 s as the number of requests grows, below vLLM's 0.23 s, and explains it by "no batching overhead".
#
# Here is the same benchmark in simulation, its seven charts, and the arithmetic behind the surprise. In the batchers no
# token is streamed: a client sees its first token with its last, which the suite reports as TTFT.

# %%
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from llmsim.reports import plots
from llmsim.studies.experiment import Published, finish, options, progress_bar, run_of, size, write_csv
from llmsim.sweep import sweep, workers

NAME = "05_benchmark_suite"
options("the LLM Scheduler Benchmark Suite")
run = run_of(NAME)
REQUESTS, BATCH = [25, 50, 99], {25: 2, 50: 4, 99: 8}
SEEDS = list(range(size(5, 2)))
DYNAMIC = "min_batch_size=2,max_batch_size=32,memory_threshold=0.9,timeout_s=0.5"


def line(policy, batch):
    """The policy as the suite configures it."""
    if policy == "vLLM":
        return "vllm_v1"
    return f"{policy.lower()},batch_size={batch}" + (f",{DYNAMIC}" if policy == "Dynamic" else "")


def measure(result):
    """The suite's columns, in its units, and how the work was batched."""
    requests, log = result.requests, result.iterations
    seconds = result.summary["duration_s"]
    prompts = log[log["prefill_tokens"] > 0]
    latency = (requests["finish_ns"] - requests["arrival_ns"]) / 1e9
    return {
        "ttft_s": result.summary["mean_ttft_ms"] / 1e3,
        "tokens_per_s": result.summary["output_throughput"],
        "total_s": seconds,
        "p50_s": latency.quantile(0.5),
        "p95_s": latency.quantile(0.95),
        "p99_s": latency.quantile(0.99),
        "latencies_s": latency.tolist(),
        "mean_batch_requests": prompts["prefill_seqs"].mean(),
        "busy_share": ((log["end_ns"] - log["start_ns"]).sum() / 1e9) / seconds,
    }


# %% [markdown]
# ## All combinations
# The suite changes two things at once: with 25, 50 and 99 requests go batch sizes of 2, 4 and 8. Here every batch size
# meets every number of requests, so that the two can be told apart.

# %%
lines = {line(policy, b): (policy, b) for policy in ("Naive", "Dynamic", "vLLM") for b in BATCH.values()}
with workers(1) as executor, progress_bar("benchmark suite") as bar:
    axes = {"scheduler": list(lines), "workload.num_requests": REQUESTS, "seed": SEEDS}
    runs = sweep(run, axes, measure, executor=executor, progress=bar)
runs["policy"] = [lines[text][0] for text in runs["scheduler"]]
runs["batch"] = [0 if text == "vllm_v1" else lines[text][1] for text in runs["scheduler"]]
numbers = [column for column in runs.columns if column not in ("scheduler", "policy", "latencies_s", "seed")]
means = runs[["policy", *numbers]].groupby(["policy", "batch", "num_requests"], sort=False).mean().reset_index()
write_csv(NAME, "all", means)
means.round(3)

# %% [markdown]
# ## The suite's seven charts
# Batch sizes as the suite pairs them with the number of requests.

# %%
suite = means[(means["policy"] == "vLLM") | (means["batch"] == means["num_requests"].map(BATCH))]
suite = suite.assign(requests=suite["num_requests"].astype(str))
write_csv(NAME, "suite", suite)
NAMES = {"ttft_s": "Mean TTFT (s)", "tokens_per_s": "Output tokens per second", "total_s": "Time to serve all (s)"}
charts = [
    plots.bars(suite, "requests", value, "policy", title=title, x_title="requests", y_title=title)
    for value, title in NAMES.items()
]
for value in ("ttft_s", "tokens_per_s"):
    title = NAMES[value]
    charts.append(
        plots.lines_with_band(suite, "num_requests", value, "policy", title=title, x_title="requests", y_title=title)
    )
box = go.Figure()
for policy, group in runs[runs["num_requests"] == 99].groupby("policy", sort=False):
    chosen = group if policy == "vLLM" else group[group["batch"] == 8]
    box.add_box(y=np.concatenate(chosen["latencies_s"].tolist()), name=policy, boxpoints=False)
box.update_layout(title="Latency of a request, 99 requests", yaxis_title="s", showlegend=False, template="plotly_white")
charts.append(box)
points = suite[suite["num_requests"] == 99].melt("policy", ["p50_s", "p95_s", "p99_s"], "percentile", "seconds")
title = "Latency percentiles, 99 requests"
charts.append(plots.bars(points, "percentile", "seconds", "policy", title=title, x_title="percentile", y_title="s"))
charts[0]

# %% [markdown]
# ## Where the surprise comes from
# Ten clients and one batch at a time: whoever sends a request finds nine others in the system, and batches of b empty
# it in 10/b batch times. A batch of 8 takes hardly longer than one of 2, since both read all weights once a token. So
# the latency falls as 1/b, and the number of requests has next to nothing to do with it:

# %%
naive = means[means["policy"] == "Naive"].pivot(index="batch", columns="num_requests", values="ttft_s")
naive.round(3)

# %%
at_99 = means[means["num_requests"] == 99].set_index(["policy", "batch"])
cases = {f"Naive, batch {b}": ("Naive", b) for b in (2, 4, 8)} | {"Dynamic, batch 8 at the start": ("Dynamic", 8)}
explanation = pd.DataFrame(
    {
        "policy": list(cases),
        "TTFT at 99 requests, s": [at_99.loc[case, "ttft_s"] for case in cases.values()],
        "requests a batch": [at_99.loc[case, "mean_batch_requests"] for case in cases.values()],
        "share of time the device waits": [1 - at_99.loc[case, "busy_share"] for case in cases.values()],
    }
)
write_csv(NAME, "explanation", explanation)
explanation.round(3)

# %% [markdown]
# The dynamic batcher asks for two more requests after every batch that leaves memory, up to 32. Ten clients can never
# fill a batch above ten, so from then on each batch waits for its whole timeout of 0.5 s: the device is idle meanwhile.
# That, not "batching delay" as such, is why its TTFT grows with the number of requests.

# %% [markdown]
# ## Published / ours / difference
# Seconds cannot be compared (another model and another device); ratios and order can. One order differs: the suite's
# vLLM is a server behind HTTP, and its 0.23 s hold the connection, the server and its queue besides the scheduler; the
# simulated vLLM streams its first token after one iteration. Without a server in between, nothing is left of the
# surprise but the batch size.

# %%
table = Published()
ours = suite.pivot(index="policy", columns="num_requests", values="ttft_s")
theirs = {"Naive": {25: 0.70, 50: 0.30, 99: 0.18}, "Dynamic": {25: 0.33, 50: 0.39, 99: 0.55}, "vLLM": {99: 0.23}}
growth = ours.div(ours[25], axis="index")
for policy, name in (("Naive", "naive"), ("Dynamic", "dynamic")):
    for n in (50, 99):
        published = theirs[policy][n] / theirs[policy][25]
        table.add(f"{name} TTFT, {n} over 25 requests", published, growth.loc[policy, n])
table.add("naive TTFT, batch 8 over batch 2, both at 99 requests", "not run", naive.loc[8, 99] / naive.loc[2, 99])
table.add("naive TTFT, 99 over 25 requests, both with batch 8", "not run", naive.loc[8, 99] / naive.loc[8, 25])
table.add("vLLM's TTFT, 99 over 25 requests", "about 1", ours.loc["vLLM", 99] / ours.loc["vLLM", 25])
table.add("lowest TTFT at 99 requests", "naive", str(ours[99].idxmin()).lower())
table.add("dynamic over naive TTFT at 99 requests", 0.55 / 0.18, ours.loc["Dynamic", 99] / ours.loc["Naive", 99])
fastest = suite[suite["num_requests"] == 99].set_index("policy")["tokens_per_s"]
table.add("highest throughput at 99 requests", "vllm", str(fastest.idxmax()).lower())
table.add("lowest throughput at 99 requests", "naive", str(fastest.idxmin()).lower())
page = finish(NAME, "The LLM Scheduler Benchmark Suite", [*charts, explanation], table)
