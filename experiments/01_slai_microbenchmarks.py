# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # What does a token budget cost? SLAI's micro-benchmarks
#
# Three small experiments decide the parameters of the SLAI study (arXiv 2508.01002): the median TTFT and the mean
# batch time of one prompt of 2,048 tokens against the token budget, the KV cache in use against the number of active
# requests, and the batch time against the number of decodes in a batch of 512 tokens. The first was published as
# numbers (agrimUT/SLAI, `scripts/plot1_results.csv`), the others as figures only.
#
# The calibration was fitted to the first, so agreement there is a check of the engine and of the fit (how iterations
# add up to a TTFT), not a prediction. The other two are.

# %%
import numpy as np
import pandas as pd

from llmsim import simulate
from llmsim.reports import plots
from llmsim.spec.run_spec import load_runs
from llmsim.studies.experiment import Published, finish, options, run_of, size, write_csv
from llmsim.traces.workload import Workload

NAME = "01_slai_microbenchmarks"
options("SLAI's micro-benchmarks")
run = run_of(NAME)

PUBLISHED = pd.DataFrame(
    {
        "chunk": [64, 128, 256, 384, 512, 768, 1024],
        "ttft_ms": [724.32, 386.26, 238.84, 243.89, 212.16, 204.89, 201.52],
        "batch_ms": [22.717, 24.070, 28.817, 37.796, 46.512, 57.083, 74.693],
    }
)

# %% [markdown]
# ## Token budget: a floor, a kink, and a remainder
# Up to about 128 tokens an iteration takes as long as reading the weights; above, it grows by 0.09 ms a token. At 384
# the prompt needs six iterations, the last of 128 tokens at the price of the floor: no faster than eight of 256.

# %%
rows = []
for chunk in size(PUBLISHED["chunk"].tolist(), [128, 256, 384]):
    spec = load_runs(mapping=run | {"scheduler": {"name": "sarathi", "chunk_size": chunk, "max_num_seqs": 1}})[0]
    summary = simulate(spec).summary
    ours = {"ttft_ms": summary["median_ttft_ms"], "batch_ms": summary["batches"]["mean_batch_ms"]}
    rows.append({"chunk": chunk, **ours})
budget = pd.DataFrame(rows).merge(PUBLISHED, on="chunk", suffixes=("", "_published"))
write_csv(NAME, "token_budget", budget)
budget.round(2)


# %%
def against_budget(column, title, y_title):
    """One value against the token budget, ours and published."""
    long = budget.melt("chunk", [column, f"{column}_published"], "source", "value")
    long["source"] = np.where(long["source"] == column, "simulated", "published")
    return plots.lines_with_band(
        long, "chunk", "value", "source", title=title, x_title="token budget (tokens per batch)", y_title=y_title
    )


figures = [
    against_budget("ttft_ms", "Median TTFT of one prompt of 2,048 tokens", "ms"),
    against_budget("batch_ms", "Mean batch time, prompt and decode iterations", "ms"),
]
figures[0]


# %% [markdown]
# ## KV in use, and the time of a batch with N decodes
# The probe `hold_n` prefills N prompts one by one and holds them, then fires one batch: a token of each and a prompt
# that fills the budget.


# %%
def fire(decodes, budget_tokens, prompt):
    """The probe's batch: KV blocks in use and milliseconds."""
    count = decodes + 1
    prompts = np.full(count, prompt, dtype=np.int64)
    prompts[-1] = budget_tokens - decodes
    zeros, ones = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    mapping = run | {"scheduler": {"name": "hold_n", "token_budget": budget_tokens, "hold_n": decodes}}
    result = simulate(load_runs(mapping=mapping)[0], workload=Workload(zeros, prompts, ones, zeros))
    log = result.iterations
    (fired,) = np.flatnonzero((log["decode_tokens"] == decodes) & (log["prefill_tokens"] == budget_tokens - decodes))
    batch = log.iloc[fired]
    return {
        "decodes": decodes,
        "kv_share": batch["kv_used_blocks"] / run["engine"]["num_blocks"],
        "batch_ms": (batch["end_ns"] - batch["start_ns"]) / 1e6,
    }


memory = pd.DataFrame([fire(n, 2048, 2048) for n in size([8, 16, 32, 64, 108], [8, 16])])
times = pd.DataFrame([fire(n, 512, 512) for n in size([8, 16, 32, 64, 128, 256], [8, 16])])
write_csv(NAME, "kv_against_requests", memory)
write_csv(NAME, "batch_time_against_decodes", times)
active = memory.assign(active=memory["decodes"] + 1, percent=100 * memory["kv_share"], what="simulated")
decoding = times.assign(what="simulated")
figures += [
    plots.lines_with_band(
        active, "active", "percent", "what",
        title="KV cache in use, prompts of 2,048 tokens", x_title="active requests", y_title="% of 14,733 blocks",
    ),
    plots.lines_with_band(
        decoding, "decodes", "batch_ms", "what",
        title="Time of a batch of 512 tokens", x_title="decodes among them, at 512 tokens each", y_title="ms",
    ),
]  # fmt: skip
figures[2]

# %% [markdown]
# ## Published / ours / difference

# %%
table = Published()
for row in budget.itertuples():
    table.add(f"median TTFT, budget {row.chunk}", row.ttft_ms_published, row.ttft_ms, unit="ms")
for row in budget.itertuples():
    table.add(f"mean batch time, budget {row.chunk}", row.batch_ms_published, row.batch_ms, unit="ms")
kink = budget.set_index("chunk")
table.add(
    "TTFT at 384 over 256 (the kink)",
    kink["ttft_ms_published"][384] / kink["ttft_ms_published"][256],
    kink["ttft_ms"][384] / kink["ttft_ms"][256],
)
most = memory.iloc[-1]
table.add(f"KV in use, {most['decodes']:.0f} prompts held", "in a figure only", f"{100 * most['kv_share']:.1f} %")
slope = 1e3 * np.polyfit(times["decodes"], times["batch_ms"], 1)[0]
table.add("batch of 512 tokens: us per decode in place of a prompt token", "in a figure only", slope, unit="us")
page = finish(NAME, "SLAI's micro-benchmarks", figures, table)
