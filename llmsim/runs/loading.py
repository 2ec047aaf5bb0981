"""Reading the files of a run directory: each is of the form that a run writes, or a ConfigError names it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from llmsim.errors import ConfigError
from llmsim.metrics.timeline import Timeline
from llmsim.runs.headline import FORMAT
from llmsim.spec.run_spec import read_yaml

AGAIN = "copy the run again, or run it again"

INTS = {
    "requests": ("id", "arrival_ns", "prompt_tokens", "output_tokens", "first_token_ns", "finish_ns", "generated"),
    "iterations": ("replica", "iteration", "start_ns", "end_ns", "prefill_tokens", "decode_tokens", "waiting",
                   "running", "kv_used_blocks"),
    "token_ranges": ("id", "replica", "first_iteration", "last_iteration"),
    "token_times": ("id", "time_ns"),
}  # fmt: skip
"""Columns of whole numbers that each table has."""
NUMBERS = {"requests": ("ttft_s", "tpot_s", "max_itl_s", "e2el_s")}
"""All or none: a result put together by hand may go without."""
TEXTS = {"requests": ("status", "slo_class")}
COUNTS = ("sent", "completed", "unfinished", "rejected", "failed")
"""Figures of a summary that are counts."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. ConfigError for anything else."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is no JSON: {' '.join(str(error).split())[:200]}; {AGAIN}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold an object but holds {type(loaded).__name__}; {AGAIN}")
    return loaded


def read_meta(path: Path) -> dict[str, Any]:
    """What meta.json holds. ConfigError for that of a newer llmsim, too."""
    meta = read_object(path)
    found = meta.pop("format", 0)
    if type(found) is not int or found < 0:
        raise ConfigError(f"{path}: format must be a whole number but is {found!r}; {AGAIN}")
    if found > FORMAT:
        raise ConfigError(f"{path}: was written by a newer llmsim (format {found}, this one reads up to {FORMAT}); "
                          "update llmsim")  # fmt: skip
    _check_mappings(meta, ("workload",), path)
    _check_mappings(meta.get("workload", {}), ("spec",), path)
    return meta


def read_summary(path: Path) -> dict[str, Any]:
    """What summary.json holds. ConfigError where the figures that everything rests on are missing or no counts."""
    summary = read_object(path)
    for name, kind in (("requests", dict), ("definitions", str), *((name, int) for name in COUNTS)):
        if not isinstance(summary.get(name), kind):
            got = f"is {summary[name]!r:.80}" if name in summary else "is missing"
            raise ConfigError(f"{path}: is no summary of a run: {name} {got}; {AGAIN}")
    return summary


def read_config(path: Path) -> str:
    """The text of the config. ConfigError if it is no YAML, or not of a run."""
    try:
        held = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"{error}; {AGAIN}") from None
    _check_mappings(held, ("workload", "cluster", "engine"), path)
    workload = held.get("workload", {})
    _check_mappings(workload, ("lengths", "arrivals"), path)
    return path.read_text(encoding="utf-8")


def _check_mappings(held: Mapping[str, Any], names: Sequence[str], path: Path) -> None:
    for name in names:
        if name in held and not isinstance(held[name], Mapping):
            raise ConfigError(f"{path}: {name} must be a mapping but is {held[name]!r:.80}; {AGAIN}")


def read_table(path: Path, *, rows: bool = True) -> pd.DataFrame:
    """A table, or its columns without a row. ConfigError, naming file and column, for what no run writes."""
    try:
        table: pd.DataFrame = pd.read_parquet(path) if rows else pq.read_schema(path).empty_table().to_pandas()
    except Exception as error:  # what pyarrow raises of damaged bytes is of no one kind
        why = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise ConfigError(f"{path}: is no Parquet table: {why}; {AGAIN}") from None
    _check_columns(table, path)
    return table


def _check_columns(table: pd.DataFrame, path: Path) -> None:
    for wanted, fits, columns in (
        ("whole numbers", _whole, INTS),
        ("numbers", pd.api.types.is_numeric_dtype, NUMBERS),
        ("text", lambda kind: not pd.api.types.is_numeric_dtype(kind), TEXTS),
    ):
        names = columns.get(path.stem, ())
        if columns is NUMBERS and not table.columns.isin(names).any():
            continue
        for name in names:
            if name not in table.columns:
                raise ConfigError(f"{path}: has no column {name!r}; {AGAIN}")
            if not fits(table[name].dtype):
                raise ConfigError(f"{path}: column {name!r} must hold {wanted} but holds {table[name].dtype}; {AGAIN}")


def _whole(kind: Any) -> bool:
    return isinstance(kind, np.dtype) and kind.kind in "iu"


def check_together(frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """ConfigError if the tables of a run name what the others do not have."""
    try:
        if "token_times" in frames:
            Timeline.of_times(frames["requests"], frames["token_times"])
        else:
            Timeline.of(frames["requests"], frames["iterations"], frames["token_ranges"])
    except ValueError as error:
        raise ConfigError(f"{folder}: its tables contradict each other: {error}; {AGAIN}") from None
