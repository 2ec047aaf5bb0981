# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # How close to a real vLLM server, and where is the time that simple models miss?
#
# 300 ShareGPT requests went to vLLM 0.19 with Llama-3.1-8B on an RTX PRO 6000 at about ten a second: more than its 128
# places can hold, so they queue for seconds, and every percent that batches are mispriced adds up in the queue. The run
# was measured by the authors of LLMServingSim (casys-kaist/LLMServingSim at 5daddb2, request by request) and is what
# simulators of the field report on; `queued_s`, when the engine accepted a request, is time zero.
#
# The calibration is made of a layer profile of the same card (kernels timed one by one), with the terms of vLLM 0.19.
# No constant was fitted to this run; docs/real-servers.md says where each comes from.
#
# `python experiments/08_vllm_real_run.py --trace requests.csv [--json]`; without `--trace` the file is looked for where
# the tests look for real data (LLMSIM_SHARED, else `shared` beside the checkout).

# %%
import json
import os
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pandas as pd

from llmsim.costs.calibration import load_calibration, save
from llmsim.data import PACKAGE
from llmsim.errors import TraceError
from llmsim.reports.plots.against import (
    busy_figure,
    busy_over_time,
    error_figure,
    error_points,
    pace_figure,
    pace_points,
)
from llmsim.spec.run_spec import load_runs
from llmsim.studies.experiment import Published, finish, options, results_folder, run_of, write_csv
from llmsim.validation.against import compare_against
from llmsim.validation.measured_run import measured_run

NAME = "08_vllm_real_run"
given = options("A real vLLM run against its simulation")
run = run_of(NAME)
SHARED = Path(os.environ.get("LLMSIM_SHARED", PACKAGE.parent.parent / "shared"))
FILE = Path(given.trace or SHARED / "groundtruth/vllm_runs/RTXPRO6000_Llama-3.1-8B_requests.csv")
if not FILE.is_file():
    raise TraceError(
        f"the measured run {FILE.name} is not there; give its path with --trace, or set LLMSIM_SHARED to the folder "
        "that holds groundtruth/vllm_runs"
    )
measured = measured_run(FILE, "queued")
METRICS = {"ttft": "TTFT", "tpot": "TPOT", "e2el": "E2E"}

# %% [markdown]
# ## The run, simulated
# `llmsim validate --against requests.csv --origin queued --calibration rtx-pro-6000/llama-3.1-8b --scheduler
# vllm_v1,max_num_batched_tokens=2048,max_num_seqs=128` does the same from the command line.


# %%
def compared(**changes):
    """The comparison, with parts of the run's description changed."""
    columns = {"arrival_s": "queued_s", "prompt_tokens": "input_tokens", "output_tokens": "output_tokens"}
    (spec,) = load_runs(None, (), run | {"workload": {"trace": str(FILE), "columns": columns}} | changes)
    return compare_against(spec, measured)


def errors_of(found):
    """Errors in percent: metric -> mean, p50, p90, p99."""
    return {m: {s: found.errors.error(m, s) for s in ("mean", "p50", "p90", "p99")} for m in METRICS}


found = compared()
ours = errors_of(found)
pd.DataFrame(ours).T.round(2)

# %% [markdown]
# ## Where the time is
# One term of the calibration left out at a time, everything else as it is. Two terms matter most, and both are
# attention that no table of decodes alone holds: beside prompts FlashAttention 2 neither packs the query heads of a
# decode nor splits its keys, which makes it up to twice as dear; and a batch of unequal decodes waits for its longest
# sequence. (Batches that are not padded run without CUDA graphs here, so they pay more for the gaps.)

# %%
calibration = load_calibration(run["calibration"])


def without(name, tables=(), coefficients=(), padding=True, ahead=True):
    """Path of the calibration without these parts."""
    held = calibration.batch_time.kernels
    kept = replace(
        held,
        tables=tuple(table for table in held.tables if table.name not in tables),
        padding=held.padding if padding else (),
    )
    batch_time = replace(
        calibration.batch_time,
        kernels=kept,
        coefficients=tuple(c for c in calibration.batch_time.coefficients if c.name not in coefficients),
    )
    engine = replace(calibration.engine, async_scheduling=ahead)
    path = results_folder(NAME) / f"without_{name}.json"
    save(replace(calibration, batch_time=batch_time, engine=engine), path)
    return str(path)


MIXED, TAILS = ("decode_mixed", "decode_mixed_tail"), ("decode_tail", "decode_mixed_tail")
GAPS = ("graph_gaps", "launch_gaps")
variants = {
    "decodes cost beside prompts what they cost alone": without("mixed", MIXED, ("mixed_pair",)),
    "nobody waits for the longest decode": without("tails", TAILS),
    "no gaps between kernels": without("gaps", coefficients=GAPS),
    "no padding to CUDA graphs": without("padding", padding=False),
    "no scheduling ahead": without("ahead", ahead=False),
    "none of these": without("all", (*MIXED, *TAILS), ("mixed_pair", *GAPS), padding=False, ahead=False),
}
ablation = pd.DataFrame(
    [{"left out": "nothing"} | {METRICS[m]: ours[m]["mean"] for m in METRICS}]
    + [
        {"left out": name} | {METRICS[m]: errors["mean"] for m, errors in errors_of(compared(calibration=path)).items()}
        for name, path in variants.items()
    ]
).set_index("left out")
ablation.round(2)

# %% [markdown]
# ## Decode iterations, counted
# Between two moments at which a request began or ended its answer, the batch of decodes is known; so is, from the time
# that passed, the number of its iterations. Each can be held against the batch-time model.

# %%
pace = found.pace.by_decodes()
pace.round(2)

# %%
points = error_points(found.live, found.simulated)
figures = [
    error_figure(points),
    busy_figure(busy_over_time(found.live), busy_over_time(found.simulated)),
    pace_figure(pace_points(found.pace.windows)),
]
figures[0]

# %% [markdown]
# ## Published / ours / difference
# Errors of the means; the published ones as their authors give them for this run (LLMServingSim), or as measured for
# other simulators on it. A four-term linear fit of the same kernels is the simplest model.

# %%
PUBLISHED = {
    "LLMServingSim": (-4.0, -1.0, -1.8),
    "a second simulator": (7.1, 9.3, 8.6),
    "a third simulator": (-12.7, -6.1, -7.8),
    "a four-term linear fit": (-18.0, -6.5, -9.5),
}
table = Published()
for i, (metric, title) in enumerate(METRICS.items()):
    best = "LLMServingSim"
    table.add(f"error of mean {title}, %; best published", PUBLISHED[best][i], ours[metric]["mean"], relative=False)
for who in list(PUBLISHED)[1:]:
    values = " / ".join(f"{value:+.1f}" for value in PUBLISHED[who])
    table.add(f"errors of the means, %: {who}", values, " / ".join(f"{ours[m]['mean']:+.1f}" for m in METRICS))
for metric, title in METRICS.items():
    rest = " / ".join(f"{ours[metric][s]:+.1f}" for s in ("p50", "p90", "p99"))
    table.add(f"errors of p50 / p90 / p99 of {title}, %", "not published", rest)
write_csv(NAME, "ablation", ablation.reset_index())
write_csv(NAME, "errors_by_request", points)
if given.json:
    rounded = {m: {s: round(value, 2) for s, value in values.items()} for m, values in ours.items()}
    with redirect_stdout(StringIO()):
        finish(NAME, "A real vLLM run", [ablation.reset_index(), pace, *figures], table)
    peers = {who: dict(zip(METRICS, values, strict=True)) for who, values in PUBLISHED.items()}
    print(json.dumps({"errors_pct": rounded, "published_mean_errors_pct": peers,
                      "left_out_mean_errors_pct": ablation.round(2).T.to_dict()}))  # fmt: skip
else:
    finish(NAME, "A real vLLM run", [ablation.reset_index(), pace, *figures], table)
