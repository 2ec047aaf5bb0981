"""find_capacity(specs, plan) -> Report: one search for each scheduler and seed, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError, did_you_mean
from llmsim.runs.simulation import policies_label
from llmsim.studies.capacity.bound import fluid_bound_rps
from llmsim.studies.capacity.osdi import DELAY, DELAY_LIMIT_S, osdi_search
from llmsim.studies.capacity.report import Report, SchedulerResult, SeedResult
from llmsim.studies.capacity.runs import (
    Chain,
    Progress,
    check_rate,
    check_replicas,
    probe_of,
    run_chains,
    seeds_matter,
    with_rate,
    with_replicas,
)
from llmsim.studies.capacity.search import Found, Search, rate_search, replica_search
from llmsim.sweep.parallel import Case, run_many

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec
    from llmsim.studies.capacity.criterion import Criterion

FIND = ("rate", "replicas")
RULES = ("bisection", "osdi")
START_SHARE = 0.5
"""A rate search starts at this share of the fluid bound, where one is given ..."""
START_RPS = 1.0
"""... and here where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to search for, and how.

    `seeds` are whole numbers >= 0, one search each; None means five from the spec's seed on, or that one alone where
    the workload is the same for all. `start` is the first candidate (None: half the bound, else 1 request/s; one
    replica). `precision` is a share of the rate. `check` adds two probes to each rate search (search.CHECKS).
    `bound_rps` is an upper bound on the whole cluster's rate (on one replica's, where replicas are searched): a start,
    and printed. None: the fluid bound (llmsim.theory.fluid) of the first run.
    """

    criterion: Criterion
    find: str = "rate"
    rule: str = "bisection"
    seeds: tuple[int, ...] | None = None
    start: float | None = None
    precision: float = 0.01
    check: bool = True
    max_replicas: int = 64
    bound_rps: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("find", self.find, FIND), ("rule", self.rule, RULES)):
            if value not in known:
                hint = did_you_mean(value, known)
                raise ConfigError(f"{name} must be one of {', '.join(known)} but got {value!r}.{hint}")
        if self.rule == "osdi" and self.find != "rate":
            raise ConfigError("the OSDI rule searches for a rate; leave --rule out to find replicas")
        if self.seeds is not None and not self.seeds:
            raise ConfigError("seeds must be at least 1 but got 0")
        if self.max_replicas < 1:
            raise ConfigError(f"max_replicas must be at least 1 but got {self.max_replicas}")
        if self.bound_rps is not None and not self.bound_rps > 0:
            raise ConfigError(f"bound_rps must be above 0 requests/s but got {self.bound_rps}")

    @property
    def first(self) -> float:
        """The first candidate of every search."""
        if self.start is not None:
            return self.start
        if self.find == "replicas":
            return 1
        if self.bound_rps is None:
            return START_RPS
        return float(f"{START_SHARE * self.bound_rps:.2g}")  # a solver's last digits must not move the probes

    def search(self) -> Search:
        """A new search. ConfigError for a start or a precision that cannot be used."""
        if self.find == "replicas":
            if self.first != int(self.first):
                raise ConfigError(f"start must be a whole number of replicas but got {self.first:g}")
            return replica_search(self.max_replicas, int(self.first))
        if self.rule == "osdi":
            return osdi_search(self.first, self._delay_limit_s())
        return rate_search(self.first, self.precision, check=self.check)

    def _delay_limit_s(self) -> float:
        limits = [c.limit for c in self.criterion.conditions if c.name == DELAY and c.limit is not None]
        return limits[0] / 1000 if limits else DELAY_LIMIT_S


def find_capacity(
    runs: Sequence[RunSpec | Case],
    plan: Plan,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Report:
    """The capacity of each run's scheduler, seed by seed; schedulers are compared with the first.

    The same arguments give the same report with any executor (sweep.workers). ConfigError for a workload that has no
    rate to search, or no limits that the criterion needs.
    """
    cases = [_checked(run if isinstance(run, Case) else Case(run), plan) for run in runs]
    if not cases:
        raise ConfigError("there is no run to find the capacity of; give at least one")
    if plan.bound_rps is None:
        one = cases[0].spec if plan.find == "rate" else with_replicas(cases[0].spec, 1)
        plan = replace(plan, bound_rps=fluid_bound_rps(one))
    varies = seeds_matter(cases[0].spec)
    first = cases[0].spec.seed
    seeds = plan.seeds if plan.seeds is not None else tuple(range(first, first + (5 if varies else 1)))
    spec_at = with_replicas if plan.find == "replicas" else with_rate
    chains = [Chain.begin(_seeded(case, seed), spec_at, plan.search()) for case in cases for seed in seeds]
    found = run_chains(chains, plan.criterion, executor, progress)
    results = []
    for at, case in enumerate(cases):
        mine = slice(at * len(seeds), (at + 1) * len(seeds))
        answers, together = found[mine], None
        if plan.find == "replicas":
            answers, together = _enough_for_all(chains[mine], answers, plan, executor)
        pairs = zip(seeds, answers, strict=True)
        by_seed = tuple(SeedResult(seed, answer, plan.find == "rate") for seed, answer in pairs)
        results.append(SchedulerResult(_label(case), by_seed, together))
    return Report(plan, tuple(results), varies)


def _checked(case: Case, plan: Plan) -> Case:
    check = check_replicas if plan.find == "replicas" else check_rate
    return replace(case, spec=check(case.spec))


def _seeded(case: Case, seed: int) -> Case:
    return replace(case, spec=case.spec.replace(seed=seed))


def _label(case: Case) -> str:
    return policies_label(case.spec, case.scheduler)


def _enough_for_all(
    chains: Sequence[Chain], found: Sequence[Found], plan: Plan, executor: Executor | None
) -> tuple[list[Found], int | None]:
    """The searches with further probes, and the smallest number of replicas seen to pass with every seed.

    It begins at the largest of the seeds' own answers. A seed that needs fewer has mostly not been run with that
    many, and more replicas need not be better, so it is run.
    """
    known = list(found)
    own = [answer.bracket.keeps for answer in known if answer.bracket.keeps is not None]
    if len(own) < len(known):
        return known, None
    for count in range(int(max(own)), plan.max_replicas + 1):
        open_ = [at for at, answer in enumerate(known) if answer.at(count) is None]
        cases = [chains[at].case_at(count) for at in open_]
        for at, judgement in zip(open_, run_many(cases, plan.criterion.of, executor=executor), strict=True):
            known[at] = replace(known[at], probes=(*known[at].probes, probe_of(count, judgement)))
        if all(probe is not None and probe.passed for probe in (answer.at(count) for answer in known)):
            return known, count
    return known, None
