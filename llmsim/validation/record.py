"""What a live run leaves, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from llmsim.errors import ConfigError
from llmsim.runs.folders import saving
from llmsim.runs.loading import read_table
from llmsim.runs.results import Result

TABLES = ("timings", "composition")


@dataclass(frozen=True, eq=False, kw_only=True)
class LiveRun:
    """A run on a real device.

    `result` is as `simulate` gives it. `timings` has one row an iteration: iteration, forward_ns (device), step_ns
    (with the host's part of the step). `composition` has one row a sequence and iteration: iteration, request, phase
    ("prefill" or "decode"), tokens, context (tokens computed before a chunk; the length of a decode's sequence).
    """

    result: Result
    timings: pd.DataFrame = field(repr=False)
    composition: pd.DataFrame = field(repr=False)

    def save(self, out: str | Path) -> Path:
        """Write the run's directory under `out`, with timings.parquet and composition.parquet in it; returns it."""
        folder = self.result.save(out)
        for name in TABLES:
            with saving(folder / f"{name}.parquet"):
                getattr(self, name).to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> LiveRun:
        """Read a live run's directory; ConfigError if it is none."""
        folder = Path(folder)
        for name in TABLES:
            if not (folder / f"{name}.parquet").is_file():
                raise ConfigError(f"{folder}: has no {name}.parquet; live runs are what `llmsim validate --out` saves")
        return cls(result=Result.load(folder), **{name: read_table(folder / f"{name}.parquet") for name in TABLES})
