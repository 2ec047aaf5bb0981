"""Chains of runs: the spec at a rate or with a number of replicas, and many searches at once.

A workload depends on its seed and rate only (the same random numbers, scaled), so all schedulers and all
candidates of a seed serve the same requests, closer together or further apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError
from llmsim.runs.replica_groups import groups_of, limits_of
from llmsim.runs.simulation import simulate
from llmsim.studies.capacity.search import Found, Probe, Search
from llmsim.traces.selection import open_source
from llmsim.traces.served_models import shared_limit
from llmsim.traces.workload import build_workload

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec
    from llmsim.studies.capacity.criterion import Criterion, Judgement
    from llmsim.sweep.parallel import Case

Progress = Callable[[int, int, int], None]
"""Called with (searches done, searches in all, probes run)."""

Ended = Callable[[int, "Found"], None]
"""Called with the number of a search and what it found, as soon as it has ended."""

SpecAt = Callable[["RunSpec", float], "RunSpec"]

RATELESS = ("ramp", "all_at_once", "closed_loop")


def with_rate(spec: RunSpec, rate: float) -> RunSpec:
    """The spec with its arrivals at this mean rate; a trace's own arrivals are stretched evenly."""
    arrivals = replace(spec.workload.arrivals, rate=rate)
    return spec.replace(workload=replace(spec.workload, arrivals=arrivals, time_scale=1.0))


def with_replicas(spec: RunSpec, count: float) -> RunSpec:
    """The spec with this many equal replicas."""
    return spec.replace(cluster=replace(spec.cluster, replicas=int(count)))


def check_rate(spec: RunSpec) -> RunSpec:
    """A spec whose arrivals have a rate to search; a trace of lengths only gets Poisson arrivals.

    ConfigError for arrivals without a rate.
    """
    if spec.cluster.scheduled:
        raise ConfigError(
            "a capacity is searched for with replicas that are there all the time, but a group of cluster.groups has a "
            "schedule; leave it out, or simulate the run at the rates you ask about (llmsim sweep, arrivals.rate)"
        )
    arrivals = spec.workload.arrivals
    if arrivals.kind in RATELESS:
        raise ConfigError(
            f"arrivals.kind {arrivals.kind!r} has no rate to search; give poisson, gamma, constant, bursts, on_off, or "
            "trace (the trace's own times, stretched)"
        )
    if arrivals.kind == "trace":
        source = open_source(spec.workload, shared_limit(_longest(spec), spec.workload.on_long))
        if source is not None and not source.has_arrivals:
            return spec.replace(workload=replace(spec.workload, arrivals=replace(arrivals, kind="poisson", rate=1.0)))
    return spec


def check_replicas(spec: RunSpec) -> RunSpec:
    """The spec, if all its replicas are equal; else ConfigError."""
    if spec.cluster.groups:
        raise ConfigError(
            "the fewest replicas are searched for equal ones, but the run has cluster.groups; leave them out, or "
            "search for the rate (--find rate)"
        )
    return spec


def seeds_matter(spec: RunSpec) -> bool:
    """Whether another seed is another run: its requests differ, or a router among several replicas draws."""
    router = spec.cluster.router
    name = router if isinstance(router, str) else router.get("name")
    if spec.cluster.replicas > 1 and name != "round_robin":
        return True
    longest = _longest(spec)
    one, other = (build_workload(spec.workload, seed, longest) for seed in (spec.seed, spec.seed + 1))
    if len(one) != len(other):  # another number is too long for its model
        return True
    columns = ("arrival_ns", "prompt_tokens", "output_tokens", "slo_index")
    return any((getattr(one, name) != getattr(other, name)).any() for name in columns)


def workload_notes(spec: RunSpec) -> list[str]:
    """What the reader of a run of this spec must know of its requests."""
    return list(build_workload(spec.workload, spec.seed, _longest(spec)).description.get("notes", ()))


def _longest(spec: RunSpec) -> dict[str, int]:
    return limits_of(groups_of(spec))


@dataclass(slots=True)
class Chain:
    """One search of one case: where it stands. `wants` is the candidate to run next, None at its end."""

    case: Case
    spec_at: SpecAt
    search: Search
    probes: list[Probe]
    wants: float | None
    found: Found | None = None

    @classmethod
    def begin(cls, case: Case, spec_at: SpecAt, search: Search) -> Chain:
        """A search asked for its first candidate."""
        return cls(case, spec_at, search, [], next(search))

    def case_at(self, at: float) -> Case:
        """The case of a candidate."""
        return replace(self.case, spec=self.spec_at(self.case.spec, at))

    def give(self, judgement: Judgement) -> None:
        """Answer the candidate wanted, and ask the search for the next."""
        assert self.wants is not None
        self.probes.append(probe_of(self.wants, judgement))
        try:
            self.wants = self.search.send(self.probes[-1])
        except StopIteration as end:
            self.wants = None
            self.found = Found(end.value, tuple(self.probes))


def probe_of(at: float, judgement: Judgement) -> Probe:
    """The probe as a search reads it: with the median scheduling delay, if the criterion is on that."""
    delay = judgement.value("median_queue")
    return Probe(at, judgement.passed, None if delay is None else delay / 1000, judgement)


def evaluate(case: Case, criterion: Criterion) -> Judgement:
    """Run the case and judge it."""
    return criterion.of(simulate(case.spec, scheduler=case.scheduler))


def run_chains(
    chains: Sequence[Chain],
    criterion: Criterion,
    executor: Executor | None,
    progress: Progress | None = None,
    ended: Ended | None = None,
) -> list[Found]:
    """What each search found, in order. A search's next candidate waits for its last answer, not for other searches.

    So the probes of a search are the same with any executor. The first error ends all and is raised.
    """

    def answered(at: int, judgement: Judgement) -> None:
        chains[at].give(judgement)
        _tell(chains, progress)
        if (found := chains[at].found) is not None and ended is not None:
            ended(at, found)

    _tell(chains, progress)
    if executor is None:
        for at, chain in enumerate(chains):
            while chain.wants is not None:
                answered(at, evaluate(chain.case_at(chain.wants), criterion))
    else:
        _run_on(executor, chains, criterion, answered)
    return [chain.found for chain in chains if chain.found is not None]


def _run_on(
    executor: Executor, chains: Sequence[Chain], criterion: Criterion, answered: Callable[[int, Judgement], None]
) -> None:
    running: dict[Future[Judgement], int] = {}

    def submit(at: int) -> None:
        wants = chains[at].wants
        if wants is not None:
            running[executor.submit(evaluate, chains[at].case_at(wants), criterion)] = at

    try:
        for at in range(len(chains)):
            submit(at)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                at = running.pop(future)
                answered(at, future.result())
                submit(at)
    except Exception:  # after an interruption the workers are killed instead (sweep.parallel.workers)
        for future in running:
            future.cancel()
        raise


def _tell(chains: Sequence[Chain], progress: Progress | None) -> None:
    if progress is not None:
        done = sum(chain.wants is None for chain in chains)
        progress(done, len(chains), sum(len(chain.probes) for chain in chains))
