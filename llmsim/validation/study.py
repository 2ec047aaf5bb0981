"""validate: the same runs live and simulated at several loads, compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmsim.costs.calibration import Calibration, load_calibration
from llmsim.errors import ConfigError, StalledError
from llmsim.runs.simulation import simulate
from llmsim.traces.workload import build_workload
from llmsim.validation.compare_runs import Comparison, compare_runs
from llmsim.validation.decompose import first_difference
from llmsim.validation.drift import DriftProbe, drift_note
from llmsim.validation.live import replay, serve_live
from llmsim.validation.loads import at_load, saturated_rate
from llmsim.validation.speed import simulate_at

if TYPE_CHECKING:
    from llmsim.executors.live import IdleClock
    from llmsim.executors.runner import ModelRunner
    from llmsim.spec.run_spec import RunSpec
    from llmsim.validation.record import LiveRun

LOADS = (0.5, 0.8, 0.95, 1.05)
WARM_UP_REQUESTS = 12
WARM_UP_TOKENS = 512
Tell = Callable[[str, int, int], None]
"""Called with (what is being done, requests done, in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What to validate: a run whose arrivals are replaced, at `loads` of what its engine can serve, or at `rates`.

    `scheduler` stands in for the spec's (a policy object, or what spec.scheduler may be).
    """

    spec: RunSpec
    loads: tuple[float, ...] = LOADS
    rates: tuple[float, ...] = ()
    scheduler: Any = None
    clock: IdleClock = "skip"

    def __post_init__(self) -> None:
        if not self.loads and not self.rates:
            raise ConfigError("at least one load is needed, such as --loads 0.5,0.8")
        if any(not 0 < rate < float("inf") for rate in self.rates):
            raise ConfigError(f"rates are requests a second above 0 but got {', '.join(map(str, self.rates))}")
        if self.spec.horizon_s is not None:
            raise ConfigError("validate compares whole runs: leave horizon_s out")


def run_study(study: Study, runner: ModelRunner, tell: Tell, each: Callable[[Comparison], None]) -> list[Comparison]:
    """Serve every load live and simulated; `each` is called as soon as a comparison is there.

    Raises what `simulate` raises, and ConfigError where the runner cannot serve the run.
    """
    spec, scheduler = study.spec, study.scheduler
    calibration = load_calibration(spec.calibration)
    longest = spec.engine.max_model_len or calibration.max_model_len
    workload = build_workload(at_load(spec, 1.0, 1.0).workload, spec.seed, longest)
    rate = saturated_rate(spec, workload, scheduler=scheduler)
    _warm_up(spec, calibration, runner, scheduler)
    found = []
    for load in study.loads if not study.rates else [each_rate / rate for each_rate in study.rates]:
        wanted = at_load(spec, load, rate)
        probe = DriftProbe.of(spec.calibration, runner)
        live = serve_live(
            wanted,
            runner,
            scheduler=scheduler,
            clock=study.clock,
            aside=probe,
            progress=partial(tell, f"live, load {load:.3g}"),
        )
        found.append(compare_live(wanted, live, load, load * rate, scheduler, probe))
        each(found[-1])
    return found


def compare_live(
    spec: RunSpec,
    live: LiveRun,
    load: float,
    rate: float,
    scheduler: Any = None,
    probe: DriftProbe | None = None,
) -> Comparison:
    """Simulate the live run's spec, replay its times, and say how far the simulation is off and why.

    `probe` timed cases of the profile during the run.
    """
    factor = probe.factor() if probe is not None else None
    return compare_runs(
        live,
        simulate(spec, scheduler=scheduler),
        load_calibration(spec.calibration),
        load=load,
        rate=rate,
        replay=_replayed(spec, live, scheduler),
        simulate_at=lambda speed: simulate_at(spec, speed, scheduler),
        drift=factor,
        drift_samples=probe.table() if probe is not None else None,
        notes=(drift_note(factor, len(probe.samples) if probe is not None else 0),),
    )


def _replayed(spec: RunSpec, live: LiveRun, scheduler: Any) -> str:
    """'identical', or the first difference between the live run and its replay."""
    try:
        result, composition = replay(spec, live.result.iterations, scheduler=scheduler)
    except StalledError as error:
        return str(error)
    return first_difference(live.composition, composition, live.result, result) or "identical"


def _warm_up(spec: RunSpec, calibration: Calibration, runner: ModelRunner, scheduler: Any) -> None:
    """A few requests nobody measures: kernels, allocator and clocks get going."""
    box = calibration.box
    tokens, decodes = (box.range(name) for name in ("tokens", "sequences"))
    runner.warm_up(tokens.high if tokens else WARM_UP_TOKENS, decodes.high if decodes else WARM_UP_TOKENS)
    few = replace(spec.workload, num_requests=WARM_UP_REQUESTS)
    serve_live(at_load(spec.replace(workload=few), 1.0, 1e6), runner, scheduler=scheduler)
