"""Small made profiles and kernel tables, of devices whose times follow a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

TOKENS = [1, 16, 64, 128, 512, 1024, 2048]
PIECES = {"layernorm": 2, "qkv_proj": 40, "rotary_emb": 3, "o_proj": 30, "gate_up_proj": 160, "act_fn": 3,
          "down_proj": 80, "embedding": 3, "final_layernorm": 2}  # fmt: skip


def prefill_us(chunk: int, past: int) -> float:
    """Attention of one chunk alone: a floor, and its tokens' mean keys."""
    return 7 + 0.01 * chunk + 2e-5 * chunk * (past + (chunk + 1) / 2)


def decode_us(decodes: int, context: int) -> float:
    """Attention of decodes alone."""
    return 8 + 0.2 * decodes + 0.003 * decodes * context


def mixed_us(chunk: int, past: int, decodes: int, context: int) -> float:
    """Both in one batch: the decodes cost 1.5 times as much, and every sequence pays for the chunk's blocks."""
    return prefill_us(chunk, past) + 1.5 * decode_us(decodes, context) + 1e-3 * chunk * (decodes + 1)


def write_profile(folder: Path, *, repeats: int = 1, tail_ns: float = 12.0) -> Path:
    """A layer profile's four files; the skew file holds sums of `repeats`. Returns what their names share."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "card_model_tp1"
    dense = [(name, n, us * (1 + n / 1000)) for name, us in PIECES.items() for n in TOKENS]
    pd.DataFrame(dense, columns=["layer", "tokens", "time_us"]).to_csv(f"{prefix}_dense.csv", index=False)
    heads = [("lm_head", n, 700 + n) for n in (1, 64, 256)] + [("sampler", n, 25 + 0.5 * n) for n in (1, 64, 256)]
    pd.DataFrame(heads, columns=["layer", "sequences", "time_us"]).to_csv(f"{prefix}_per_sequence.csv", index=False)
    contexts, counts, chunks, pasts = (16, 512, 1024, 2048, 4096), (1, 8, 64, 128), (16, 128, 512, 2048), (0, 512, 1024)
    rows = [(0, 0, n, k, decode_us(n, k)) for n in counts for k in contexts]
    rows += [(c, p, 0, 0, prefill_us(c, p)) for c in chunks for p in pasts]
    rows += [(c, p, n, k, mixed_us(c, p, n, k)) for c in chunks for p in pasts for n in counts for k in contexts]
    columns = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    pd.DataFrame(rows, columns=columns).to_csv(f"{prefix}_attention.csv.gz", index=False)
    _skew(prefix, repeats, tail_ns)
    return prefix


def _skew(prefix: Path, repeats: int, tail_ns: float) -> None:
    rows = []
    for regime, chunk in (("pure", 0), ("mixed", 128)):
        for n in (8, 64, 128):
            for short, long in ((512, 2048), (1024, 4096)):
                mean = (short * (n - 1) + long) / n
                equal = decode_us(n, mean) if chunk == 0 else mixed_us(chunk, 0, n, mean)
                most = decode_us(n, long) if chunk == 0 else mixed_us(chunk, 0, n, long)
                extra = tail_ns / 1e3 * (long - mean) if n >= 64 or chunk else 0.0
                times = [repeats * us for us in (equal, most, equal + extra)]
                rows.append((regime, n, 1, chunk, 0, short, long, mean, *times))
    columns = ["regime", "n", "nb", "pc", "kp", "kvs", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us"]
    pd.DataFrame(rows, columns=columns).to_csv(f"{prefix}_skew.csv.gz", index=False)


def gemm_ms(m: float, n: float, k: float) -> float:
    """A matrix product: weights read once, then operations."""
    return max(n * k * 2 / 1e12, 2 * m * n * k / 4e14) * 1e3


def prompts_us(prompts: int, length: int) -> float:
    """Attention of several prompts in one batch: one floor."""
    return 7 + prompts * (prefill_us(length, 0) - 7)


def write_tables(
    folder: Path, system: str = "h100_sxm", version: str = "0.24.0", gpus: tuple[int, ...] = (2, 4, 8)
) -> Path:
    """Kernel tables of a card in that folder: 32/8, 16/4 and 8/2 heads."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [1024, 2048, 4096, 8192, 16384, 65536]
    gemm = [(m, n, k, gemm_ms(m, n, k)) for m in (1, 16, 128, 512, 1024, 2048, 4096) for n in sizes for k in sizes]
    _write(folder, system, version, "gemm", gemm, ["m", "n", "k", "latency"])
    heads = [(32, 8), (16, 4), (8, 2)]
    prompts = [
        (b, c, h, kv, 0, prompts_us(b, c) / 1e3)
        for h, kv in heads for b in (1, 2, 4, 8) for c in (16, 64, 128, 256, 512, 1024, 2048)
    ]  # fmt: skip
    columns = ["batch_size", "isl", "num_heads", "num_key_value_heads", "step", "latency"]
    _write(folder, system, version, "context_attention", prompts, columns)
    decodes = [
        (n, k - 1, h, kv, decode_us(n, k) / 1e3)
        for h, kv in heads for n in (1, 8, 64, 256) for k in (16, 256, 1024, 4096, 16384, 65536) if n * k <= 2**21
    ]  # fmt: skip
    columns = ["batch_size", "step", "num_heads", "num_key_value_heads", "latency"]
    _write(folder, system, version, "generation_attention", decodes, columns)
    reduce = [
        (g, s, f"vllm_{how}", 5e-3 + s * 1e-9)
        for g in gpus for s in (128, 2**20, 2**28) for how in ("graph", "eager")
    ]  # fmt: skip
    _write(folder, system, version, "custom_allreduce", reduce, ["num_gpus", "message_size", "backend", "latency"])
    return folder


def _write(folder: Path, system: str, version: str, kind: str, rows: list, columns: list[str]) -> None:
    table = pd.DataFrame(rows, columns=columns)
    table.to_parquet(table_path(folder, system, version, kind), index=False)


def table_path(folder: Path, system: str, version: str, kind: str) -> Path:
    """Where a table lies."""
    return folder / f"{system}_vllm{version}_{kind}_perf.parquet"


def relative(a: float, b: float) -> float:
    """|a / b - 1|."""
    return abs(float(np.float64(a) / b) - 1)
