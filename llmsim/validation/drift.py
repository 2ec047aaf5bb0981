"""Has the device changed since it was profiled? A few cases of the profile, timed again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmsim.costs.calibration import load_calibration
from llmsim.data import data_folders
from llmsim.profiling.cases import parse_case
from llmsim.profiling.features import fit_table, load_measurements
from llmsim.profiling.measure import Bench, no_collection

if TYPE_CHECKING:
    from llmsim.executors.runner import ModelRunner
    from llmsim.profiling.cases import Case

CASES, REPEATS = 12, 5


def find_measurements(calibration: str) -> Path | None:
    """The measurements that a calibration (name or file) was fitted to, if they are kept."""
    places = [Path(calibration).parent] if calibration.endswith(".json") else []
    name = load_calibration(calibration).name
    places += [folder / name for folder in (Path("profiling/measurements"), *data_folders("profiling/measurements"))]
    return next((place / "measurements.csv" for place in places if (place / "measurements.csv").is_file()), None)


@dataclass(frozen=True, slots=True)
class DriftProbe:
    """The cases and the seconds (median) that the profile found for them."""

    cases: tuple[Case, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, calibration: str, pages: int, page_size: int) -> DriftProbe | None:
        """Every n-th of the measured cases that fit `pages`, by time; None if the measurements are not to be found.

        They are looked for beside the calibration's file, then in profiling/measurements/<device>/<model>.
        """
        path = find_measurements(calibration)
        if path is None:
            return None
        table = fit_table(load_measurements(path)).sort_values("seconds")
        cases = [(parse_case(text), float(s)) for text, s in zip(table["case"], table["seconds"], strict=True)]
        usable = [(case, s) for case, s in cases if case.blocks(page_size) <= pages]
        chosen = usable[:: max(1, len(usable) // CASES)]
        return cls(tuple(case for case, _ in chosen), tuple(s for _, s in chosen))

    def ratio(self, runner: ModelRunner) -> float:
        """Seconds now over seconds then, the median over the cases: 1.02 is a device 2 % slower than profiled."""
        bench = Bench(runner, runner.spec.seed)
        with no_collection():
            # Before the first round, one that warms up: the memory of batches of these sizes, their kernels.
            rounds = [[bench.run(case).forward_ns / 1e9 for case in self.cases] for _ in range(REPEATS + 1)]
        return float(np.median(np.median(rounds[1:], axis=0) / np.array(self.seconds)))
