"""Each measured iteration of a live run against what the calibration says of that very batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.core.batch import Work
from llmsim.costs.ranges import outside_box

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration
    from llmsim.validation.record import LiveRun

WORK = ("prefill_tokens", "prefill_seqs", "prefill_context", "prefill_attention", "decode_tokens", "decode_context")
REGIMES = ("prefill", "decode", "mixed")


@dataclass(frozen=True, eq=False, slots=True)
class IterationErrors:
    """Times of every iteration, measured and modelled, and what follows from them.

    `table`: iteration, regime, tokens, start_ns, forward_s, forward_model_s, host_s, host_model_s, outside (the box).
    """

    table: pd.DataFrame

    @property
    def bias_pct(self) -> float:
        """Total modelled over total measured forward time, less one, in percent."""
        return _pct(float(self.table["forward_model_s"].sum() / self.table["forward_s"].sum()) - 1)

    @property
    def forward_ratio(self) -> float:
        """Total measured over total modelled forward time: what the model must be multiplied with to be unbiased."""
        return float(self.table["forward_s"].sum() / self.table["forward_model_s"].sum())

    def by_regime(self) -> pd.DataFrame:
        """Per regime and in all: iterations, share_of_time, mape_pct, p95_pct, bias_pct, outside_pct."""
        table = self.table
        rows = [{"regime": name} | _figures(part, table) for name, part in table.groupby("regime", sort=True)]
        return pd.DataFrame([*rows, {"regime": "all"} | _figures(table, table)])

    def by_size(self) -> pd.DataFrame:
        """The same by quartiles of the batch's tokens."""
        table = self.table
        edges = np.unique(np.quantile(table["tokens"], (0, 0.25, 0.5, 0.75, 1)).astype(int))
        if len(edges) < 2:
            return pd.DataFrame([{"tokens": str(edges[0])} | _figures(table, table)])
        bins = np.searchsorted(edges[1:-1], table["tokens"].to_numpy(), side="left")
        return pd.DataFrame(
            [
                {"tokens": f"{int(part['tokens'].min())} to {int(part['tokens'].max())}"} | _figures(part, table)
                for _, part in table.groupby(bins)
            ]
        )

    def host(self) -> dict[str, float]:
        """Host time an iteration in microseconds: live mean, median and p99, and the calibration's."""
        host = self.table["host_s"].to_numpy() * 1e6
        return {
            "mean_us": round(float(host.mean()), 2),
            "median_us": round(float(np.median(host)), 2),
            "p99_us": round(float(np.percentile(host, 99)), 2),
            "model_us": round(float(self.table["host_model_s"].iloc[0]) * 1e6, 2),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "iterations": len(self.table),
            "bias_pct": self.bias_pct,
            "by_regime": self.by_regime().to_dict("records"),
            "by_size": self.by_size().to_dict("records"),
            "host": self.host(),
        }


def iteration_errors(live: LiveRun, calibration: Calibration) -> IterationErrors:
    """Price every iteration of the live run: forward pass by the batch-time model, the rest by the host overhead."""
    held = live.result.iterations
    model = calibration.batch_time.cost_model()
    rows = held[list(WORK)].itertuples(index=False, name=None)
    forward = live.timings["forward_ns"].to_numpy() / 1e9
    prompts, decodes = held["prefill_tokens"].to_numpy() > 0, held["decode_tokens"].to_numpy() > 0
    table = pd.DataFrame(
        {
            "iteration": held["iteration"].to_numpy(),
            "regime": np.where(prompts & decodes, "mixed", np.where(prompts, "prefill", "decode")),
            "tokens": (held["prefill_tokens"] + held["decode_tokens"]).to_numpy(),
            "start_ns": held["start_ns"].to_numpy(),
            "forward_s": forward,
            "forward_model_s": [model.seconds(Work(*row)) for row in rows],
            "host_s": (held["end_ns"] - held["start_ns"]).to_numpy() / 1e9 - forward,
            "host_model_s": np.full(len(held), calibration.host_overhead.seconds),
            "outside": outside_box(calibration.box, held),
        }
    )
    return IterationErrors(table)


def _figures(part: pd.DataFrame, whole: pd.DataFrame) -> dict[str, float | int]:
    error = (part["forward_model_s"] / part["forward_s"] - 1).to_numpy()
    return {
        "iterations": len(part),
        "share_of_time_pct": _pct(float(part["forward_s"].sum() / whole["forward_s"].sum())),
        "mape_pct": _pct(float(np.abs(error).mean())),
        "p95_pct": _pct(float(np.percentile(np.abs(error), 95))),
        "bias_pct": _pct(float(part["forward_model_s"].sum() / part["forward_s"].sum()) - 1),
        "outside_pct": _pct(float(part["outside"].mean())),
    }


def _pct(share: float) -> float:
    return round(share * 100, 3)
