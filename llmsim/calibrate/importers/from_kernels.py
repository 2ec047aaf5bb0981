"""Importer `kernels`: a calibration of any Llama-like model from tables of one card's kernels.

Matrix products, attention and all-reduces are measured; small operations are estimated (`small_operations`); faults of
the tables are mended by rule (`decode_faults`). What such tables lack for FlashAttention 2, decodes beside prompts and
decodes of unequal length, is taken from a layer profile of another card if one is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llmsim.calibrate.importers import small_operations
from llmsim.calibrate.importers.all_reduce import all_reduce_seconds, all_reduce_source, needs_table
from llmsim.calibrate.importers.attention import above_floor, fit_attention
from llmsim.calibrate.importers.chunks import chunk_walk
from llmsim.calibrate.importers.decode_faults import drop_outliers, mend_cached
from llmsim.calibrate.importers.engines import Engine
from llmsim.calibrate.importers.from_layers import tails_of
from llmsim.calibrate.importers.gpus import Gpu, decodes_per_wave, unsplit_from
from llmsim.calibrate.importers.kernel_files import Gemm, find_table, read_table
from llmsim.calibrate.importers.kernels import KernelTimes
from llmsim.calibrate.importers.layer_profile import read_layer_profile
from llmsim.calibrate.importers.rising import never_dearer
from llmsim.costs.models import ModelConfig
from llmsim.errors import CalibrationError

SYSTEMS = {
    "h200": "h200_sxm", "h100": "h100_sxm", "a100": "a100_sxm", "l40s": "l40s", "rtx-pro-6000": "rtx_pro_6000_server",
}  # fmt: skip
"""Our name of a card -> its name in the tables' files."""
MOST_TOKENS = 16384
MOST_SEQUENCES = 1024
SLOW_GEMM = (
    "Not corrected: for one card (RTX PRO 6000) such tables give matrix products of 1,024 tokens or more 20-26 % "
    "slower than its layer profile."
)
RATIO_CONTEXT = 1024
"""Context at which the times of decodes beside prompts and alone are put in relation."""
EDGE, SPREAD = 128, 15
"""From EDGE rows on tables hold products on both sides of a tile's edge (1,024 and 1,025 rows); the step up between
them is spread over a tensor core's 16 rows, as in layer profiles, which are measured every 16 tokens."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Times, the files they come from, and what was found in them."""

    times: KernelTimes
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def kernel_times(
    folder: str | Path,
    model: ModelConfig,
    gpu: Gpu,
    engine: Engine,
    *,
    tensor_parallel: int = 1,
    like: str | Path | None = None,
) -> Imported:
    """Times of `model` on `tensor_parallel` cards from the tables in `folder`; `like` is a layer profile's prefix.

    Raises CalibrationError if a table, a shape of heads or a number of cards is missing.
    """
    system = SYSTEMS.get(gpu.name, gpu.name)
    files = {kind: find_table(folder, system, kind) for kind in ("gemm", "context_attention", "generation_attention")}
    gemm = Gemm(read_table(files["gemm"], "gemm"))
    tokens, sequences = _linear(gemm, model, gpu, tensor_parallel)
    linear = files["gemm"].name
    if tensor_parallel > 1:
        if needs_table(gpu, tensor_parallel):
            files["custom_allreduce"] = find_table(folder, system, "custom_allreduce")
        table = files.get("custom_allreduce")
        sizes = tokens.index.to_numpy(dtype=float) * model.hidden * 2
        tokens = tokens + 2 * model.layers * all_reduce_seconds(table, gpu, tensor_parallel, sizes)
        linear += f", two all-reduces a layer ({all_reduce_source(table, gpu, tensor_parallel)})"
    tokens = _mended(tokens)
    attention, notes = _attention(files, model, gpu, tensor_parallel)
    prompts = read_table(files["context_attention"], "context_attention")
    walk, said = chunk_walk(prompts, gpu, model.heads // tensor_parallel, model.layers)
    borrowed = None
    if like is not None and gpu.attention == "fa2":
        borrowed = _borrowed(like, unsplit_from(gpu, model.kv_heads // tensor_parallel))
    gaps = engine.kernels(model, tensor_parallel)
    estimated = "small operations estimated"
    times = KernelTimes(
        layers=model.layers,
        tokens=tokens,
        sequences=sequences,
        attention=attention,
        tails=borrowed.tails if borrowed else (pd.Series(dtype=float), pd.Series(dtype=float)),
        waves=decodes_per_wave(gpu, model.heads // tensor_parallel, model.kv_heads // tensor_parallel),
        gaps=(engine.graph_gap_s * gaps, engine.launch_gap_s * gaps),
        engine=engine,
        sources={
            "tokens": f"{linear}, {model.layers} layers; {estimated}",
            "sequences": f"{files['gemm'].name}: LM head; sampler estimated",
            "attention": f"{files['context_attention'].name}, {files['generation_attention'].name}",
            "tails": borrowed.source if borrowed else "",
            "mixed_ratio": borrowed.source if borrowed else "",
        },
        mixed_ratio=borrowed.ratio if borrowed else None,
        mixed_pair=borrowed.pair if borrowed else 0.0,
        walk=walk,
    )
    if gemm.outliers:
        notes.append(f"{files['gemm'].name}: {gemm.outliers} outliers replaced by the mean of their neighbours")
    notes += [said, SLOW_GEMM, _mixed_note(gpu, like)]
    return Imported(times=times, files=tuple(files.values()), notes=tuple(notes))


def _linear(gemm: Gemm, model: ModelConfig, gpu: Gpu, tensor_parallel: int) -> tuple[pd.Series, pd.Series]:
    """Seconds of everything but attention by tokens, and of LM head and sampler by sequences."""
    q = model.heads * model.head_dim // tensor_parallel
    kv = 2 * model.kv_heads * model.head_dim // tensor_parallel
    mlp = model.mlp // tensor_parallel
    shapes = [(q + kv, model.hidden), (model.hidden, q), (2 * mlp, model.hidden), (model.hidden, mlp)]
    layer = sum((gemm.curve(n, k) for n, k in shapes), start=pd.Series(0.0, index=gemm.rows))
    layer = layer[layer.index <= MOST_TOKENS]
    at = layer.index.to_numpy(dtype=float)
    small = small_operations.layer_seconds(model, gpu, at, tensor_parallel)
    tokens = (layer + small) * model.layers + small_operations.once_seconds(model, gpu, at)
    tokens.index = [m + SPREAD if m > EDGE and m - 1 in layer.index else m for m in layer.index]
    head = gemm.curve(model.vocabulary // tensor_parallel, model.hidden)
    head = head[head.index <= MOST_SEQUENCES]
    return tokens, head + small_operations.sampler_seconds(head.index.to_numpy(dtype=float))


def _mended(tokens: pd.Series) -> pd.Series:
    """Seconds that rise, and where tiles are full cost no more than their halves; those after an edge lie between."""
    at = tokens.index.to_numpy(dtype=float)
    full = np.array([m <= EDGE or m - SPREAD - 1 not in tokens.index for m in tokens.index])
    kept = never_dearer(at[full], tokens.to_numpy(dtype=float)[full])
    right = np.minimum(np.searchsorted(at[full], at), len(kept) - 1)
    least = kept[np.maximum(right - 1, 0)]
    return pd.Series(np.where(full, kept[right], np.clip(tokens, least, np.maximum(least, kept[right]))), tokens.index)


def _attention(
    files: dict[str, Path], model: ModelConfig, gpu: Gpu, tensor_parallel: int
) -> tuple[pd.DataFrame, list[str]]:
    heads, kv_heads = model.heads // tensor_parallel, model.kv_heads // tensor_parallel
    prompts = _of_heads(files["context_attention"], "context_attention", heads, kv_heads)
    chunk, past, batch = prompts["isl"], prompts["step"], prompts["batch_size"]
    prefill = pd.DataFrame(
        {
            "prefill_tokens": batch * chunk,
            "prefill_seqs": batch,
            "prefill_context": batch * past,
            "prefill_attention": batch * (chunk * past + chunk * (chunk + 1) // 2),
            "decode_tokens": 0,
            "decode_context": 0,
            "seconds": prompts["seconds"],
        }
    )
    prefill = prefill[prefill["prefill_tokens"] <= MOST_TOKENS]
    rows = _of_heads(files["generation_attention"], "generation_attention", heads, kv_heads)
    decodes = pd.DataFrame(
        {"decodes": rows["batch_size"], "context": rows["step"] + 1, "seconds": rows["seconds"]}
    ).astype({"decodes": int, "context": int})
    decodes = decodes[decodes["decodes"] <= MOST_SEQUENCES].groupby(["decodes", "context"], as_index=False).median()
    decodes, dropped = drop_outliers(decodes)
    decodes, mended = mend_cached(decodes, kv_heads, gpu.l2_bytes)
    name = files["generation_attention"].name
    notes = [f"{name}: {dropped} outliers left out, {mended} of {len(decodes)} times read from the cache and replaced"]
    decode = pd.DataFrame(
        {
            "prefill_tokens": 0,
            "prefill_seqs": 0,
            "prefill_context": 0,
            "prefill_attention": 0,
            "decode_tokens": decodes["decodes"],
            "decode_context": decodes["decodes"] * decodes["context"],
            "seconds": decodes["seconds"],
        }
    )
    return pd.concat([prefill, decode], ignore_index=True), notes


def _of_heads(path: Path, kind: str, heads: int, kv_heads: int) -> pd.DataFrame:
    table = read_table(path, kind)
    rows = table[(table["num_heads"] == heads) & (table["num_key_value_heads"] == kv_heads)]
    if rows.empty:
        known = sorted(set(zip(table["num_heads"].tolist(), table["num_key_value_heads"].tolist(), strict=True)))
        raise CalibrationError(
            f"{path}: has no attention of {heads} heads and {kv_heads} KV heads a card; it has "
            + ", ".join(f"{a}/{b}" for a, b in known)
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class _Borrowed:
    ratio: pd.Series
    pair: float
    tails: tuple[pd.Series, pd.Series]
    source: str


def _borrowed(prefix: str | Path, unsplit: int) -> _Borrowed:
    """What decodes beside prompts take over decodes alone, and what waiting for the longest costs, on another card."""
    profile = read_layer_profile(prefix)
    tables = fit_attention(profile.attention)
    if tables.decode_mixed is None or profile.unequal.empty:
        raise CalibrationError(f"{prefix}: holds no batches of decodes beside prompts, or none of unequal lengths")
    ratio = tables.decode_mixed[RATIO_CONTEXT] / above_floor(tables.decode)[RATIO_CONTEXT]
    return _Borrowed(
        ratio=ratio.dropna(),
        pair=tables.mixed_pair,
        tails=tails_of(profile, unsplit),
        source=f"Not measured on this card: as in {profile.files[2].name}, a card with FlashAttention 2, too.",
    )


def _mixed_note(gpu: Gpu, like: str | Path | None) -> str:
    if gpu.attention == "fa3":
        return "Decodes beside prompts cost what they cost alone (FlashAttention 3 packs query heads); not measured."
    if like is None:
        return "Decodes beside prompts cost what they cost alone: no measurement of such batches was given (--like)."
    return f"Decodes beside prompts, and waiting for the longest decode, as in the layer profile {Path(like).name}."
