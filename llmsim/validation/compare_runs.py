"""One live run against its simulation: the error table, the iterations, the causes, and two counterfactuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from llmsim.runs.results import Result
from llmsim.validation.compare import ErrorTable, compare
from llmsim.validation.decompose import decompose
from llmsim.validation.iterations import IterationErrors, iteration_errors
from llmsim.validation.record import LiveRun
from llmsim.validation.speed import Speed, as_probed, constant

if TYPE_CHECKING:
    from llmsim.costs.calibration import Calibration

SimulateAt = Callable[[Speed], Result]
FOUND_SPEED = "the device as fast as it was found during the run"
UNBIASED = "the mean error of batch times taken away"


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The run simulated with batch times multiplied by `factor` (on average): what is left of the errors."""

    name: str
    factor: float
    errors: ErrorTable

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"name": self.name, "factor": self.factor, **self.errors.as_dict()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """A load, live and simulated.

    `replay` is "identical", or where the replay on the recorded times parted. `drift_samples`: at_ns, ratio (seconds of
    cases of the profile during the run over then).
    """

    load: float
    rate: float
    live: LiveRun
    simulated: Result
    errors: ErrorTable
    iterations: IterationErrors
    causes: pd.DataFrame
    counterfactuals: tuple[Counterfactual, ...]
    replay: str
    drift_samples: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

    @property
    def at_found_speed(self) -> ErrorTable | None:
        """Errors with the device as fast as probes found it during the run; None if it was not probed."""
        return next((other.errors for other in self.counterfactuals if other.name == FOUND_SPEED), None)

    @property
    def label(self) -> str:
        """Policy and load."""
        return f"{self.live.result.label}, load {self.load:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "scheduler": self.live.result.label,
            "load": self.load,
            "rate": self.rate,
            **self.errors.as_dict(),
            "iterations": self.iterations.as_dict(),
            "causes": self.causes.to_dict("records"),
            "counterfactuals": [found.as_dict() for found in self.counterfactuals],
            "replay": self.replay,
            "notes": list(self.notes),
        }


def compare_runs(
    live: LiveRun,
    simulated: Result,
    calibration: Calibration,
    *,
    load: float,
    rate: float,
    replay: str,
    simulate_at: SimulateAt,
    drift: float | None = None,
    drift_samples: pd.DataFrame | None = None,
    notes: tuple[str, ...] = (),
) -> Comparison:
    """Compare the two. `simulate_at` runs the simulation on a device of another speed.

    `drift_samples` (at_ns, ratio) are how many times as long as in the profile the device took for the profile's own
    cases during the run, `drift` their mean.
    """
    iterations = iteration_errors(live, calibration)
    speeds = {UNBIASED: (iterations.forward_ratio, constant(iterations.forward_ratio))}
    if drift is not None and drift_samples is not None:
        speeds = {FOUND_SPEED: (drift, as_probed(drift_samples))} | speeds
    counterfactuals = tuple(
        Counterfactual(name, factor, compare(live.result, simulate_at(speed)))
        for name, (factor, speed) in speeds.items()
    )
    return Comparison(
        load=load,
        rate=rate,
        live=live,
        simulated=simulated,
        errors=compare(live.result, simulated),
        iterations=iterations,
        causes=decompose(live, simulated, iterations),
        counterfactuals=counterfactuals,
        replay=replay,
        drift_samples=drift_samples,
        notes=notes,
    )

