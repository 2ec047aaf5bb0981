"""find_capacity(specs, plan) -> Report: one search for each scheduler and seed, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError
from llmsim.runs.labels import policies_label
from llmsim.studies.capacity.answers import SchedulerResult, SeedResult
from llmsim.studies.capacity.bound import fluid_bound_rps
from llmsim.studies.capacity.plan import Plan
from llmsim.studies.capacity.report import Report
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
from llmsim.studies.capacity.search import Found
from llmsim.sweep.parallel import Case, run_many

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec

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
