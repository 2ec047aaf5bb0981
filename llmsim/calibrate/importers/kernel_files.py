"""Reading kernel tables in the layout of aiconfigurator's databases (Parquet, latencies in milliseconds).

    gemm                  m, n, k
    context_attention     batch_size, isl, num_heads, num_key_value_heads, step (tokens before the chunk)
    generation_attention  batch_size, step (context - 1), num_heads, num_key_value_heads
    custom_allreduce      num_gpus, message_size (bf16 elements), backend (CUDA graph or eager)

Only bf16 and a head size of 128 are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmsim.errors import CalibrationError

Floats = NDArray[np.float64]

OUTLIER = 1 / 3

_COLUMNS = {
    "gemm": ("m", "n", "k", "latency"),
    "context_attention": ("batch_size", "isl", "num_heads", "num_key_value_heads", "step", "latency"),
    "generation_attention": ("batch_size", "step", "num_heads", "num_key_value_heads", "latency"),
    "custom_allreduce": ("num_gpus", "message_size", "backend", "latency"),
}


def find_table(folder: str | Path, system: str, kind: str) -> Path:
    """The file of that kind and system (`h100_sxm`) in the folder, the newest vLLM version if there are several.

    Raises CalibrationError if there is none.
    """
    found = sorted(Path(folder).glob(f"{system}_vllm*_{kind}_perf.parquet"), key=_version)
    if not found:
        systems = sorted({path.name.split("_vllm")[0] for path in Path(folder).glob("*_vllm*_perf.parquet")})
        raise CalibrationError(
            f"{folder}: has no table {system}_vllm*_{kind}_perf.parquet; systems there: {', '.join(systems) or 'none'}"
        )
    return found[-1]


def _version(path: Path) -> tuple[int, ...]:
    text = path.name.split("_vllm")[1].split("_")[0]
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def read_table(path: Path, kind: str) -> pd.DataFrame:
    """The rows of a table, with `seconds` for the latency.

    Raises CalibrationError for missing columns and for times that are not above 0.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path}: cannot be read as Parquet ({error})") from error
    missing = [name for name in _COLUMNS[kind] if name not in table.columns]
    if missing:
        raise CalibrationError(f"{path}: lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty or not (table["latency"] > 0).all():
        raise CalibrationError(f"{path}: holds no rows, or latencies that are not above 0 ms")
    return table.assign(seconds=table["latency"] * 1e-3)


class Gemm:
    """Seconds of a matrix product (m x k by k x n) by interpolation in a table of one card.

    A time a row of m that lies above those of the next smaller and larger m by more than a third is replaced by their
    geometric mean; `outliers` counts them.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        grid = table.groupby(["m", "n", "k"])["seconds"].median().unstack("m")  # rows (n, k)
        per_row = np.log(grid.to_numpy() / grid.columns.to_numpy(dtype=float))
        odd, between = _outliers(per_row)
        self.outliers = int(odd.sum())
        grid = grid.mask(odd, pd.DataFrame(np.exp(between), grid.index, grid.columns).mul(grid.columns, axis=1))
        self._times = {int(m): grid[m].dropna() for m in grid.columns}
        self.rows = sorted(self._times)
        """The values of m that were measured."""

    def curve(self, n: int, k: int) -> pd.Series:
        """Seconds by m for weights of k x n: where that shape was not measured, between the four around it.

        Interpolated is the logarithm over the logarithms of n and k; n or k beyond the table is cut into equal parts,
        one after the other.
        """
        return pd.Series({m: self._at(self._times[m], n, k) for m in self.rows})

    def _at(self, times: pd.Series, n: int, k: int) -> float:
        most_n = int(times.index.get_level_values("n").max())
        most_k = int(times.index.get_level_values("k").max())
        if n > most_n:
            parts = -(-n // most_n)
            return parts * self._at(times, -(-n // parts), k)
        if k > most_k:
            parts = -(-k // most_k)
            return parts * self._at(times, n, -(-k // parts))
        total = weight = 0.0
        for at_n, share_n in _around(sorted(set(times.index.get_level_values("n"))), n):
            for at_k, share_k in _around(sorted(set(times.index.get_level_values("k"))), k):
                if (at_n, at_k) in times.index and share_n * share_k:
                    total += share_n * share_k * float(np.log(times[at_n, at_k] / (at_n * at_k)))
                    weight += share_n * share_k
        if not weight:
            raise CalibrationError(f"no matrix near {k} x {n} was measured")
        return float(np.exp(total / weight)) * n * k


def _outliers(values: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Which logarithms lie above those of both neighbours in their row by OUTLIER, and the neighbours' means.

    Disturbances only add time, so a value below its neighbours is taken for a good one beside a bad one.
    """
    odd, between = np.zeros(values.shape, dtype=bool), values.copy()
    left, right = values[:, :-2], values[:, 2:]
    between[:, 1:-1] = (left + right) / 2
    odd[:, 1:-1] = values[:, 1:-1] > np.fmax(left, right) + np.log1p(OUTLIER)
    return odd, between


def _around(points: list[int], at: int) -> list[tuple[int, float]]:
    """The measured points around `at` and their shares, by logarithm."""
    right = int(np.searchsorted(points, at))
    if right == 0:
        return [(points[0], 1.0)]
    if points[min(right, len(points) - 1)] == at or right == len(points):
        return [(points[min(right, len(points) - 1)], 1.0)]
    low, high = points[right - 1], points[right]
    share = float(np.log(at / low) / np.log(high / low))
    return [(low, 1 - share), (high, share)]
