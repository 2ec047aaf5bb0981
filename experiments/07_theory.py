# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Does the simulator agree with theory where theory is exact?
#
# Four checks: the mean wait of a single-server queue; RAD's bound on tokens per second, and its stability just below
# and just above (arXiv 2508.01002, Theorems 1 and 2); which policies of Dai et al. (arXiv 2504.07347) keep a bounded
# queue at their point C; and the fluid bound beside a saturated run. `tests/theory` holds the same as assertions.

# %%
import json

import numpy as np
import pandas as pd

from llmsim import load_calibration, load_runs, simulate
from llmsim.costs.calibration import Calibration
from llmsim.data import data_folders
from llmsim.reports import plots
from llmsim.studies.experiment import Published, finish, options, results_folder, run_of, size, write_csv
from llmsim.theory import dai_capacity, m_d_1_wait, m_m_1_wait, rad_token_rate
from llmsim.theory.fluid import fluid_capacity
from llmsim.traces.workload import Workload, build_workload

NAME = "07_theory"
options("the simulator against closed forms")
run = run_of(NAME)
UNITS = {"constant": "s", "per_tile": "s/tile", "per_token": "s/token"}


def calibration(name, form, tile_tokens=None, **values):
    """A calibration file with these batch times and memory for everything."""
    held = json.loads(load_calibration(run["calibration"]).to_json())
    coefficients = {n: {"value": v, "unit": UNITS[n], "source": "chosen"} for n, v in values.items()}
    held["batch_time"] = {"form": form, "coefficients": coefficients}
    if tile_tokens:
        held["batch_time"]["tile_tokens"] = tile_tokens
    held["kv"]["num_blocks"] = 10_000_000
    path = results_folder(NAME) / f"{name}.json"
    path.write_text(json.dumps(held, indent=2))
    return str(path)


def serve(path, scheduler, arrival_s, prompt, output, **more):
    """A run of these requests; the result."""
    mapping = run | {"calibration": path, "scheduler": scheduler, **more}
    ns, zeros = np.rint(np.asarray(arrival_s) * 1e9).astype(np.int64), np.zeros(len(prompt), dtype=np.int64)
    work = Workload(ns, np.asarray(prompt, dtype=np.int64), np.asarray(output, dtype=np.int64), zeros)
    return simulate(load_runs(mapping=mapping)[0], workload=work)


# %% [markdown]
# ## One slot: M/D/1 and M/M/1
# Orca with one place serves one request at a time; a prompt of n tokens takes n x 10 us and has one output token.

# %%
table = Published()
N = size(60_000, 8_000)
queue = calibration("one_slot", "linear", constant=1e-9, per_token=1e-5)
rows = []
for load in (0.3, 0.6, 0.8):
    for kind, closed_form in (("M/D/1", m_d_1_wait), ("M/M/1", m_m_1_wait)):
        rng = np.random.default_rng([int(10 * load), kind == "M/M/1"])
        arrivals = np.cumsum(rng.exponential(0.01 / load, N))
        prompts = np.full(N, 1000) if kind == "M/D/1" else np.maximum(1, np.rint(rng.exponential(1000, N)))
        engine = {"max_model_len": 100_000}
        requests = serve(queue, "orca,max_num_seqs=1", arrivals, prompts, np.ones(N), engine=engine).requests
        waits = (requests["first_scheduled_ns"] - requests["arrival_ns"]).to_numpy() / 1e6
        wait, lindley = 0.0, np.zeros(N)  # W' = max(0, W + service - gap): exact for these very arrivals
        for i, (service, gap) in enumerate(zip(1e-2 * prompts[:-1], 1e3 * np.diff(arrivals), strict=True)):
            wait = lindley[i + 1] = max(0.0, wait + service - gap)
        batches = waits[: N // 40 * 40].reshape(40, -1).mean(axis=1)  # neighbours wait alike: errors from batch means
        exact = 1e3 * closed_form(load / 0.01, 0.01)
        error = 1.96 * batches.std(ddof=1) / np.sqrt(40)
        rows.append(
            {"queue": kind, "load": load, "exact_ms": exact, "lindley_ms": lindley.mean(),
             "simulated_ms": waits.mean(), "error_ms": error}
        )  # fmt: skip
        table.add(f"{kind} at load {load}: mean wait, ms (closed form / simulated)", exact, float(waits.mean()))
        same = "mean wait, ms (Lindley's recursion on the same arrivals / simulated)"
        table.add(f"{kind} at load {load}: {same}", float(lindley.mean()), float(waits.mean()))
waits = pd.DataFrame(rows)
write_csv(NAME, "queues", waits)
waits.round(3)

# %% [markdown]
# ## RAD: the bound, and both sides of it
# Tiles of 128 tokens, 4 ms a tile and 5 us a token: at most 128 tokens in 4,640 us. Prompts are whole tiles, outputs
# geometric with a mean of 180; routing is uniformly random.

# %%
tiled = calibration("rad", "tiled", tile_tokens=128, per_tile=4e-3, per_token=5e-6)
bound = rad_token_rate(128, 4e-3, 5e-6)
N = size(60_000, 6_000)
rng = np.random.default_rng(5)
unit_gaps, prompts, outputs = rng.exponential(1, N), 128 * rng.integers(1, 9, N), rng.geometric(1 / 180, N)
tokens = float((prompts + outputs - 1).mean())
rows, queues = [], []
for replicas in (1, 4):
    for load in (0.97, 1.03):
        rate = load * replicas * bound / tokens
        arrivals = np.cumsum(unit_gaps) / rate
        cluster = {"replicas": replicas, "router": "random"}
        result = serve(tiled, "rad", arrivals, prompts, outputs, cluster=cluster)
        finished = np.sort(result.requests["finish_ns"])
        left = np.arange(1, N + 1) - np.searchsorted(finished, result.requests["arrival_ns"], "right")
        half = N // 2
        growth = np.polyfit(np.arange(half), left[-half:], 1)[0]
        log = result.iterations
        busy = log[log["end_ns"] <= result.requests["arrival_ns"].max()]
        spans = (busy["end_ns"] - busy["start_ns"]).sum() / 1e9
        speed = (busy["prefill_tokens"] + busy["decode_tokens"]).sum() / spans
        rows.append(
            {"replicas": replicas, "load": load, "grows by": growth, "theory": max(0.0, 1 - 1 / load),
             "outstanding at the end": left[-1], "tokens/s while busy, of the bound": speed / bound}
        )  # fmt: skip
        thin = slice(None, None, max(1, N // 500))
        name = f"{load:.0%} of the bound, {replicas} replica{'s' * (replicas > 1)}"
        queues.append(pd.DataFrame({"request": np.arange(N)[thin], "outstanding": left[thin], "run": name}))
rad = pd.DataFrame(rows)
write_csv(NAME, "rad", rad)
for row in rows:
    what = f"RAD at {row['load']:.0%}, {row['replicas']} replicas: requests left behind per arrival"
    table.add(what, row["theory"], float(row["grows by"]), relative=False)
figures = [
    plots.lines_with_band(
        pd.concat(queues), "request", "outstanding", "run",
        title="RAD just below and just above the bound", x_title="arrivals so far", y_title="requests in the system",
    )
]  # fmt: skip
rad.round(4)

# %% [markdown]
# ## Point C of Dai et al.
# Batches of b tokens take 11.28 + 35.47 x ceil(b / 128) ms, at most 128 tokens and 100 residents; a request of 290
# prompt and 990 output tokens arrives every 467.5 ms, for 500 s. The load is exactly one. Rules that fill every batch
# when there is demand (work-conserving) must keep their queue bounded; the others must not. The cap of 100 residents is
# exactly enough: 99 decodes leave 29 tokens of a batch, so a prompt of 290 takes ten batches, and 990 more for its
# outputs make 1,000 batches or 46.75 s, in which 100 requests arrive. With 99 places even Sarathi diverges.
#
# Names differ between papers. Dai's "FasterTransformer" decodes first and never mixes (the real one serves batches to
# their end), their "vanilla vLLM" is prefill-first without mixing. The published Orca of this point is met by whole
# prompts in mixed batches, beyond the 128 tokens: a prompt takes three tiles at once and wastes part of the last. An
# Orca that cuts prompts to the budget is work-conserving, and bounded. `dai_policies.py` has the four rules.

# %%
folder = next(f for f in data_folders("experiments") if (f / "dai_policies.py").is_file())
point_c = calibration("point_c", "tiled", tile_tokens=128, per_tile=35.47e-3, constant=11.28e-3)
arrivals = np.arange(0.4675, 500, 0.4675)
POLICIES = {
    "Sarathi": (f"{folder}/dai_policies.py:Sarathi", (95.3, 101)),
    "Orca, whole prompts": ("orca,max_num_seqs=100", (174.3, 269)),
    "Orca, prompts cut to the budget": (f"{folder}/dai_policies.py:Orca", None),
    "vanilla vLLM (prefill first)": (f"{folder}/dai_policies.py:PrefillFirst", (204.4, 333)),
    "FasterTransformer (decode first)": (f"{folder}/dai_policies.py:DecodeFirst", (529.4, 1059)),
}
offered, capacity = (290 + 990) / 0.4675, dai_capacity(128, 46.75e-3)
table.add("point C: tokens/s of full batches over tokens/s offered", 1.0, capacity / offered)
engine = {"first_token_at_prefill_end": False, "max_model_len": 2048}
rows, lines = [], []
for name, (line, published) in POLICIES.items():
    prompts, outputs = np.full(len(arrivals), 290), np.full(len(arrivals), 990)
    requests = serve(point_c, line, arrivals, prompts, outputs, engine=engine, horizon_s=500).requests
    done = np.sort(requests.loc[requests["status"] == "finished", "finish_ns"]) / 1e9
    at = np.arange(0, 500, 0.2)
    left = np.searchsorted(requests["arrival_ns"] / 1e9, at, "right") - np.searchsorted(done, at, "right")
    growth = np.polyfit(at[-800:], left[-800:], 1)[0]
    rows.append({"policy": name, "mean": left.mean(), "max": left.max(), "grows by, requests/s": growth,
                 "queue": "bounded" if abs(growth) < 0.02 else "diverges"})  # fmt: skip
    lines.append(pd.DataFrame({"s": at[::10], "requests": left[::10], "policy": name}))
    if published:
        table.add(f"point C, {name}: mean requests in the system", published[0], float(left.mean()))
        table.add(f"point C, {name}: most requests in the system", float(published[1]), float(left.max()))
dai = pd.DataFrame(rows)
write_csv(NAME, "dai_point_c", dai)
title = "Point C: requests in the system"
figures.append(
    plots.lines_with_band(pd.concat(lines), "s", "requests", "policy", title=title, x_title="s", y_title="requests")
)
dai.round(2)

# %% [markdown]
# ## The fluid bound
# The highest rate that any scheduler can sustain under a batch-time model, by a linear programme over what every
# iteration must respect, beside what a saturated replica (all requests at once) completes.

# %%
rows = []
for trace in ("sharegpt4", "azure-code", "azure-conv"):
    for budget in (512, 2048):
        mapping = run | {"scheduler": {"name": "sarathi", "chunk_size": budget, "max_num_seqs": 128}}
        mapping["workload"] = run["workload"] | {"trace": trace, "num_requests": size(2000, 300)}
        spec = load_runs(mapping=mapping)[0]
        drawn = build_workload(spec.workload, spec.seed)
        known: Calibration = load_calibration(spec.calibration)
        limits = {"token_budget": budget, "max_num_seqs": 128}
        bound = fluid_capacity(known, drawn.prompt_tokens, drawn.output_tokens, **limits)
        reached = simulate(spec).summary["request_throughput"]
        rows.append({"trace": trace, "token budget": budget, "bound req/s": bound.rps, "reached req/s": reached,
                     "share": reached / bound.rps, "says": bound.describe()})  # fmt: skip
        table.add(f"fluid bound, {trace}, budget {budget}: requests/s (bound / reached)", bound.rps, reached)
fluid = pd.DataFrame(rows)
write_csv(NAME, "fluid", fluid)
fluid.round(3)

# %% [markdown]
# ## Theory or published / ours / difference

# %%
sections = [
    *figures,
    "<h2>RAD</h2>",
    rad.round(4),
    "<h2>Point C</h2>",
    dai.round(2),
    "<h2>Fluid bound</h2>",
    fluid.round(3),
]
page = finish(NAME, "Theory", sections, table)
