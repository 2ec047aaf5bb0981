"""Reading a layer profile: CUDA times of one decoder layer's pieces, in the layout of LLMServingSim's vLLM profiler.

    <prefix>_dense.csv          layer, tokens, time_us                 GEMMs, norms, rotary positions, activation
    <prefix>_per_sequence.csv   layer, sequences, time_us              LM head, sampler
    <prefix>_attention.csv[.gz] prefill_chunk, kv_prefill, n_decode, kv_decode, time_us
    <prefix>_skew.csv[.gz]      decodes of unequal context: n, nb of which are kv_big long, the others kvs

What is wrong with a file is found here: units that contradict another file, gaps, values that are no times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from llmsim.errors import CalibrationError

LAYER_PIECES = ("layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj")
"""What each layer runs besides attention; the norm twice, `qk_norm` once where the model has it."""
ONCE = ("embedding", "final_layernorm")
SEQUENCE_PIECES = ("lm_head", "sampler")

_FILES = {
    "dense": ("layer", "tokens", "time_us"),
    "per_sequence": ("layer", "sequences", "time_us"),
    "attention": ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
    "skew": ("regime", "n", "nb", "pc", "kp", "kvs", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us"),
}


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """One model's profile on one degree of tensor parallelism; times in seconds, of one layer and one card.

    `layer` by tokens is the sum of a layer's pieces, `once` by tokens what runs once an iteration, `sequences` LM head
    and sampler by sequences. `attention` has the columns of `importers.attention`. `unequal` has decodes,
    prefill_tokens, above (tokens by which the longest exceeds the mean), ratio (share of long ones) and extra (seconds
    above a batch of equal contexts); empty if that was not measured. `files` are those read.
    """

    layer: pd.Series
    once: pd.Series
    sequences: pd.Series
    attention: pd.DataFrame
    unequal: pd.DataFrame
    files: tuple[Path, ...]
    notes: tuple[str, ...] = field(default=())


def read_layer_profile(prefix: str | Path, *, qk_norm: bool = False) -> LayerProfile:
    """The profile whose files begin with `prefix`. Raises CalibrationError naming the file and what is wrong."""
    prefix = Path(prefix)
    dense, dense_file = _read(prefix, "dense")
    heads, heads_file = _read(prefix, "per_sequence")
    rows, rows_file = _read(prefix, "attention")
    files = [dense_file, heads_file, rows_file]
    pieces = dense.pivot_table(index="tokens", columns="layer", values="time_us", aggfunc="median") * 1e-6
    wanted = (*LAYER_PIECES, *(("qk_norm",) if qk_norm else ()))
    _complete(dense_file, pieces, (*wanted, *ONCE))
    by_sequence = heads.pivot_table(index="sequences", columns="layer", values="time_us", aggfunc="median") * 1e-6
    _complete(heads_file, by_sequence, SEQUENCE_PIECES)
    layer = pieces[list(wanted)].sum(axis=1) + pieces["layernorm"]
    unequal, notes = pd.DataFrame(), list[str]()
    if _path(prefix, "skew") is not None:
        skew, skew_file = _read(prefix, "skew")
        files.append(skew_file)
        unequal, notes = _unequal(skew, rows, skew_file)
    return LayerProfile(
        layer=layer,
        once=pieces[list(ONCE)].sum(axis=1),
        sequences=by_sequence[list(SEQUENCE_PIECES)].sum(axis=1),
        attention=_attention(rows),
        unequal=unequal,
        files=tuple(files),
        notes=tuple(notes),
    )


def _path(prefix: Path, kind: str) -> Path | None:
    candidates = (prefix.with_name(f"{prefix.name}_{kind}{end}") for end in (".csv", ".csv.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read(prefix: Path, kind: str) -> tuple[pd.DataFrame, Path]:
    path = _path(prefix, kind)
    if path is None:
        raise CalibrationError(
            f"there is no {prefix.name}_{kind}.csv or .csv.gz in {prefix.parent or '.'}; give the part of the path "
            "that the profile's files share, as in profile/RTX4090_Llama-3.1-8B_tp1"
        )
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [name for name in _FILES[kind] if name not in table.columns]
    if missing:
        raise CalibrationError(f"{path}: lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
    numbers = table[[name for name in _FILES[kind] if name not in ("layer", "regime")]]
    wrong = numbers.apply(pd.to_numeric, errors="coerce").isna().any(axis=1)
    times = [name for name in numbers if str(name).endswith("_us")]
    wrong |= (numbers[times].apply(pd.to_numeric, errors="coerce") <= 0).any(axis=1)
    if wrong.any():
        raise CalibrationError(f"{path}: row {int(wrong.to_numpy().argmax()) + 2} holds no time above 0 or no number")
    return table, path


def _complete(path: Path, pieces: pd.DataFrame, wanted: tuple[str, ...]) -> None:
    missing = [name for name in wanted if name not in pieces.columns]
    if missing:
        raise CalibrationError(f"{path}: has no times of {', '.join(missing)}; it has {', '.join(map(str, pieces))}")
    gaps = pieces[list(wanted)].isna().any(axis=1)
    if gaps.any():
        raise CalibrationError(f"{path}: not every piece was timed at {list(pieces.index[gaps])[:5]}")


def _attention(rows: pd.DataFrame) -> pd.DataFrame:
    chunk, past = rows["prefill_chunk"], rows["kv_prefill"]
    return pd.DataFrame(
        {
            "prefill_tokens": chunk,
            "prefill_seqs": (chunk > 0).astype(int),
            "prefill_context": past,
            "prefill_attention": chunk * past + chunk * (chunk + 1) // 2,
            "decode_tokens": rows["n_decode"],
            "decode_context": rows["n_decode"] * rows["kv_decode"],
            "seconds": rows["time_us"] * 1e-6,
        }
    )


def _unequal(skew: pd.DataFrame, rows: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """What unequal contexts cost; the file's unit is found by the batches that stand in the attention file, too."""
    keys = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode"]
    both = skew.merge(rows, left_on=["pc", "kp", "n", "kv_big"], right_on=keys)
    if both.empty:
        raise CalibrationError(f"{path}: shares no batch with the attention file, so its unit cannot be checked")
    ratio = both["t_max_us"] / both["time_us"]
    unit = round(float(ratio.median()))
    if unit < 1 or abs(ratio.median() / unit - 1) > 0.05:
        raise CalibrationError(
            f"{path}: the same batches take {ratio.median():.2f} times as long as in the attention file; a whole "
            "number was expected (1, or the number of repeats if it holds sums)"
        )
    notes = []
    if unit > 1:
        notes.append(
            f"{path.name} holds sums of {unit} repeats: the same batches take {ratio.median():.2f} times as long as in "
            f"the attention file; its times were divided by {unit}"
        )
    table = pd.DataFrame(
        {
            "decodes": skew["n"],
            "prefill_tokens": skew["pc"],
            "above": skew["kv_big"] - skew["kv_mean"],
            "ratio": skew["nb"] / skew["n"],
            "extra": (skew["t_skew_us"] - skew["t_mean_us"]) * 1e-6 / unit,
        }
    )
    return table, notes
