"""Is the device as fast as when it was profiled? Cases of the profile, timed again between a live run's iterations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmsim.calibrate.fitting.features import fit_table, load_measurements
from llmsim.calibrate.profiling.cases import parse_case
from llmsim.calibrate.profiling.measure import Bench
from llmsim.costs.calibration import load_calibration
from llmsim.data import data_folders
from llmsim.executors.live import SCRATCH_PAGES

if TYPE_CHECKING:
    from llmsim.calibrate.profiling.cases import Case
    from llmsim.executors.runner import ModelRunner

CASES = 16
EVERY_S = 0.4
"""Real seconds between two probes."""
LONGEST_S = 0.06
"""Cases that take longer are not used: a probe is to disturb the run as little as it can."""
TRIM = 0.1
"""Share of the probes that is left out at either end of their mean."""


class DriftProbe:
    """Times one case of the profile every EVERY_S seconds while the clock of a live run stands still.

    The cases run on scratch pages, so the run's KV is left alone; the iteration after finds caches disturbed.
    `samples` holds (clock of the run in ns, seconds now over seconds in the profile).
    """

    def __init__(self, runner: ModelRunner, known: list[tuple[Case, float]]) -> None:
        self._bench = Bench(runner, runner.spec.seed, runner.num_pages - SCRATCH_PAGES)
        self._known = known
        self._next = 0
        self._due = 0.0
        self.samples: list[tuple[int, float]] = []
        for case, _ in known:  # kernels and memory for these sizes
            self._bench.run(case)

    @classmethod
    def of(cls, calibration: str, runner: ModelRunner) -> DriftProbe | None:
        """Every n-th by time of the measured cases that are short enough; None if there are no measurements.

        `find_measurements` says where they are looked for.
        """
        path = find_measurements(calibration)
        if path is None:
            return None
        table = fit_table(load_measurements(path)).sort_values("seconds")
        cases = [(parse_case(text), float(s)) for text, s in zip(table["case"], table["seconds"], strict=True)]
        size = runner.spec.page_size
        usable = [(case, s) for case, s in cases if case.blocks(size) <= SCRATCH_PAGES and s <= LONGEST_S]
        return cls(runner, usable[:: max(1, len(usable) // CASES)]) if usable else None

    def __call__(self, now_ns: int) -> None:
        """Probe, if it is time."""
        if time.perf_counter() < self._due:
            return
        case, then = self._known[self._next]
        self._next = (self._next + 1) % len(self._known)
        self.samples.append((now_ns, self._bench.run(case).forward_ns / 1e9 / then))
        self._due = time.perf_counter() + EVERY_S

    def factor(self) -> float | None:
        """Trimmed mean of the samples: 1.02 is a device 2 % slower than profiled. None with fewer than ten."""
        ratios = np.sort([ratio for _, ratio in self.samples])
        if len(ratios) < 10:
            return None
        cut = int(len(ratios) * TRIM)
        return float(ratios[cut : len(ratios) - cut].mean())

    def table(self) -> pd.DataFrame:
        """Columns at_ns, ratio."""
        return pd.DataFrame(self.samples, columns=["at_ns", "ratio"])


def find_measurements(calibration: str) -> Path | None:
    """The measurements that a calibration (name or file) was fitted to, if they are kept: beside the file, or in
    profiling/measurements/<device>/<model> of the folder it lies in, of this one, or of the package."""
    name = load_calibration(calibration).name
    file = Path(calibration)
    places: list[Path] = []
    if file.suffix == ".json":
        places = [file.parent, *(up / "profiling/measurements" / name for up in file.parents[:3])]
    shipped = data_folders("profiling/measurements")
    places += [folder / name for folder in (Path("profiling/measurements"), *shipped)]
    return next((place / "measurements.csv" for place in places if (place / "measurements.csv").is_file()), None)


def drift_note(factor: float | None, samples: int) -> str:
    """What the probes said about the device."""
    if factor is None:
        return (
            "whether the device is as fast as when it was profiled is not known: no measurements lie beside the "
            "calibration, or the run was too short to probe"
        )
    return (
        f"cases of the profile, timed again {samples} times during the run, took {100 * (factor - 1):+.1f} %: as much "
        "of the batch-time error is the device's, not the model's"
    )
