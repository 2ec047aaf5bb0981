"""The pace of a measured run: what its pure decode iterations took, by their batch, against the calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.validation.iteration_counts import MOST, count_iterations
from llmsim.validation.token_counts import Stretch, tied_stretches
from llmsim.validation.windows import decode_windows

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration

EDGES = (0, 1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024, 1 << 30)
"""Groups of numbers of decodes, upper end included."""
PHASES = 8
UNCLEAR = 0.25
"""A quotient farther than this from a whole number might have been the next one."""


@dataclass(frozen=True, eq=False, slots=True)
class Pace:
    """Windows of pure decoding with few iterations, and stretches whose iterations are known by tokens.

    `windows`: start_s, window_s, iterations, decodes, context, longest, off, modelled_s (see count_iterations), clock
    of the run. `stretches`: start_s, seconds, iterations, decodes_from, decodes_to, measured_ms, modelled_ms (of an
    iteration), bias_pct. `contradictions`: requests whose tokens do not fit one token an iteration. `unused`: windows
    that held no iteration (two stamps of one) or too many to be counted. `host_s` is the calibration's.
    """

    windows: pd.DataFrame = field(repr=False)
    stretches: pd.DataFrame = field(repr=False)
    contradictions: int
    unused: dict[str, int]
    host_s: float

    @property
    def bias_pct(self) -> float | None:
        """Modelled over measured seconds of all counted iterations, less one, in percent; None without any."""
        measured = float(self.windows["window_s"].sum())
        return round(100 * (float(self.windows["modelled_s"].sum()) / measured - 1), 3) if measured else None

    @property
    def batch_factor(self) -> float | None:
        """What takes this bias away if batch times are multiplied with it, the host's time kept; None if unknown."""
        host = self.host_s * float(self.windows["iterations"].sum())
        modelled = float(self.windows["modelled_s"].sum()) - host
        measured = float(self.windows["window_s"].sum()) - host
        return measured / modelled if modelled > 0 and measured > 0 else None

    def by_decodes(self) -> pd.DataFrame:
        """Per group of numbers of decodes and in all: see `_figures`."""
        groups = np.searchsorted(EDGES, self.windows["decodes"].to_numpy(), side="left")
        rows = [
            {"decodes": f"{part['decodes'].min()} to {part['decodes'].max()}"} | _figures(part)
            for _, part in self.windows.groupby(groups)
        ]
        return pd.DataFrame([*rows, *([{"decodes": "all"} | _figures(self.windows)] if rows else [])])

    def by_time(self) -> pd.DataFrame:
        """Per eighth of the time from the first to the last window: from_s, to_s, and as by_decodes."""
        start = self.windows["start_s"].to_numpy()
        if not len(start):
            return pd.DataFrame()
        edges = np.linspace(start.min(), start.max(), PHASES + 1)
        groups = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, PHASES - 1)
        return pd.DataFrame(
            [
                {"from_s": round(float(edges[at]), 3), "to_s": round(float(edges[at + 1]), 3)} | _figures(part)
                for at, part in ((at, self.windows[groups == at]) for at in np.unique(groups).tolist())
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "windows": len(self.windows),
            "iterations": int(self.windows["iterations"].sum()),
            "bias_pct": self.bias_pct,
            "batch_factor": self.batch_factor,
            "by_decodes": self.by_decodes().to_dict("records"),
            "by_time": self.by_time().to_dict("records"),
            "stretches": self.stretches.to_dict("records"),
            "contradictions": self.contradictions,
            "unused_windows": self.unused,
        }


def pace_of(requests: pd.DataFrame, calibration: Calibration) -> Pace:
    """The pace of one replica's run; `requests` is a request table whose requests all finished."""
    windows = decode_windows(requests)
    known, contradictions = tied_stretches(requests, windows)
    counted = count_iterations(windows, calibration.cost_model(), known)
    iterations = counted["iterations"]
    used = counted[(iterations > 0) & (iterations <= MOST)].reset_index(drop=True)
    table = used.assign(start_s=used["start_ns"] / 1e9, window_s=used["window_ns"] / 1e9)
    columns = ["start_s", "window_s", "iterations", "decodes", "context", "longest", "off", "modelled_s"]
    unused = {"no_iteration": int((iterations == 0).sum()), f"more_than_{MOST}": int((iterations > MOST).sum())}
    return Pace(table[columns], _stretch_table(counted, known), contradictions, unused, calibration.host_overhead_s)


def _stretch_table(counted: pd.DataFrame, known: list[Stretch]) -> pd.DataFrame:
    rows = []
    for first, last, iterations in known:
        part = counted.iloc[first:last]
        seconds = float(part["window_ns"].sum()) / 1e9
        turns = part["window_ns"] / 1e9 / part["pace_s"]
        modelled = float((part["single_s"] * turns).sum() / turns.sum())
        rows.append(
            {
                "start_s": float(part["start_ns"].iloc[0]) / 1e9,
                "seconds": seconds,
                "iterations": iterations,
                "decodes_from": int(part["decodes"].iloc[0]),
                "decodes_to": int(part["decodes"].iloc[-1]),
                "measured_ms": 1e3 * seconds / iterations,
                "modelled_ms": 1e3 * modelled,
                "bias_pct": 100 * (modelled * iterations / seconds - 1),
            }
        )
    return pd.DataFrame(rows).round(4)


def _figures(part: pd.DataFrame) -> dict[str, float | int]:
    """windows, iterations, mean_context (tokens a sequence), measured_ms and modelled_ms an iteration, bias_pct, and
    unclear: windows whose count might be one more or less."""
    iterations, measured, modelled = (float(part[name].sum()) for name in ("iterations", "window_s", "modelled_s"))
    return {
        "windows": len(part),
        "iterations": int(iterations),
        "mean_context": round(float(part["context"].sum() / part["decodes"].sum()), 1),
        "measured_ms": round(1e3 * measured / iterations, 4),
        "modelled_ms": round(1e3 * modelled / iterations, 4),
        "bias_pct": round(100 * (modelled / measured - 1), 3),
        "unclear": int((part["off"] > UNCLEAR).sum()),
    }
