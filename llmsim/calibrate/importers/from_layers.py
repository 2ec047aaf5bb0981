"""Importer `layer-profile`: a calibration from the CUDA times of one decoder layer's pieces."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from llmsim.calibrate.importers.all_reduce import all_reduce_seconds, all_reduce_source, needs_table
from llmsim.calibrate.importers.engines import Engine
from llmsim.calibrate.importers.gpus import Gpu, decodes_per_wave, unsplit_from
from llmsim.calibrate.importers.kernels import KernelTimes
from llmsim.calibrate.importers.layer_profile import LayerProfile, read_layer_profile
from llmsim.costs.models import ModelConfig
from llmsim.errors import CalibrationError

LONG_ONES = 0.13
"""Share of long sequences up to which a batch says what waiting for the longest costs: above it, it is the batch."""
ABOVE = 500
"""Tokens by which the longest must exceed the mean: below that the extra time is noise."""


def layer_profile_times(
    prefix: str | Path,
    model: ModelConfig,
    gpu: Gpu,
    engine: Engine,
    *,
    tensor_parallel: int = 1,
    all_reduce: str | Path | None = None,
) -> tuple[KernelTimes, LayerProfile]:
    """Times of `model` on `tensor_parallel` cards from the profile whose files begin with `prefix`.

    The profile is that of one card. It holds no all-reduce: with more than one card `all_reduce` names the table
    (`custom_allreduce`) to take it from. Raises CalibrationError for faults of the files, and if it is missing.
    """
    if tensor_parallel > 1 and all_reduce is None and needs_table(gpu, tensor_parallel):
        raise CalibrationError(
            f"a layer profile holds no all-reduce, and {tensor_parallel} cards need two a layer; give the table of "
            "their times with --all-reduce FILE.parquet"
        )
    profile = read_layer_profile(prefix, qk_norm=model.qk_norm)
    tokens = profile.layer * model.layers + profile.once
    source = f"{profile.files[0].name}: {model.layers} layers' pieces, embedding and last norm"
    if tensor_parallel > 1:
        sizes = tokens.index.to_numpy(dtype=float) * model.hidden * 2
        tokens = tokens + 2 * model.layers * all_reduce_seconds(all_reduce, gpu, tensor_parallel, sizes)
        table = None if all_reduce is None else Path(all_reduce)
        source += f"; two all-reduces a layer: {all_reduce_source(table, gpu, tensor_parallel)}"
    kernels = engine.kernels(model, tensor_parallel)
    times = KernelTimes(
        layers=model.layers,
        tokens=tokens,
        sequences=profile.sequences,
        attention=profile.attention,
        tails=tails_of(profile, unsplit_from(gpu, model.kv_heads // tensor_parallel)),
        waves=decodes_per_wave(gpu, model.heads // tensor_parallel, model.kv_heads // tensor_parallel),
        gaps=(engine.graph_gap_s * kernels, engine.launch_gap_s * kernels),
        engine=engine,
        sources={
            "tokens": source,
            "sequences": f"{profile.files[1].name}: LM head and sampler",
            "attention": f"{profile.files[2].name}, {model.layers} layers",
            "tails": f"{profile.files[-1].name}, batches with at most {LONG_ONES:.0%} long sequences, median",
        },
    )
    return times, profile


def tails_of(profile: LayerProfile, unsplit: int) -> tuple[pd.Series, pd.Series]:
    """Seconds a token above the mean by decodes, alone and beside prompts; empty where none was measured.

    Up to `unsplit` decodes alone nobody waits, since keys are split among blocks; from there on each measured number of
    decodes says it for those up to it, too, as the change is a jump. Beside prompts keys are never split.
    """
    rows = profile.unequal
    if rows.empty:
        return pd.Series(dtype=float), pd.Series(dtype=float)
    rows = rows[(rows["above"] >= ABOVE) & ((rows["ratio"] <= LONG_ONES) | (rows["decodes"] < 8))]
    rate = (rows["extra"] / rows["above"]).clip(lower=0)
    alone = rate[rows["prefill_tokens"] == 0].groupby(rows["decodes"]).median()
    beside = rate[rows["prefill_tokens"] > 0].groupby(rows["decodes"]).median()
    alone = alone[alone.index >= unsplit]
    if not alone.empty:
        first = pd.Series({1: 0.0, unsplit - 1: 0.0, unsplit: alone.iloc[0]})
        alone = pd.concat([first, alone[alone.index > unsplit]])
    return alone, pd.concat([pd.Series({1: 0.0}), beside])
