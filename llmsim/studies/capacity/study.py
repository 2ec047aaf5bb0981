"""find_capacity(specs, plan) -> Report: one search for each scheduler and seed, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError
from llmsim.runs.engine_settings import engine_report
from llmsim.runs.facts import NO_SLO, OFFERED, REPLICAS, facts_of
from llmsim.runs.labels import names_of, policies_label
from llmsim.runs.notes import unproven
from llmsim.runs.replica_groups import groups_of
from llmsim.spec import strict
from llmsim.spec.engine_policy import names_engine
from llmsim.spec.run_spec import dump_run
from llmsim.studies.capacity.answers import SchedulerResult, SeedResult
from llmsim.studies.capacity.bound import fluid_bound_rps
from llmsim.studies.capacity.plan import Plan
from llmsim.studies.capacity.report import Report
from llmsim.studies.capacity.runs import (
    Chain,
    Progress,
    SpecAt,
    check_rate,
    check_replicas,
    probe_of,
    run_chains,
    seeds_matter,
    with_rate,
    with_replicas,
    workload_notes,
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
    ended: Callable[[str, SeedResult], None] | None = None,
) -> Report:
    """The capacity of each run's scheduler, seed by seed; schedulers are compared with the first.

    `ended` is told the run's name and what was found with a seed as soon as that search has ended.

    The same arguments give the same report with any executor (sweep.workers). ConfigError for a workload that has no
    rate to search, or no limits that the criterion needs.
    """
    cases = [_checked(run if isinstance(run, Case) else Case(run), plan) for run in runs]
    if not cases:
        raise ConfigError("there is no run to find the capacity of; give at least one")
    plans = _bounded(cases, plan)
    varies = any(seeds_matter(spec) for spec in _apart(cases).values())
    first = cases[0].spec.seed
    seeds = plan.seeds if plan.seeds is not None else tuple(range(first, first + (5 if varies else 1)))
    spec_at = with_replicas if plan.find == "replicas" else with_rate
    chains = [
        Chain.begin(_seeded(case, seed), spec_at, own.search())
        for case, own in zip(cases, plans, strict=True)
        for seed in seeds
    ]
    questions = _questions(cases, plans)

    def tell(at: int, answer: Found) -> None:
        if ended is not None:
            question, seed = divmod(at, len(seeds))
            ended(questions[question].name, SeedResult(seeds[seed], answer, plan.find == "rate"))

    found = run_chains(chains, plan.criterion, executor, progress, tell)
    results = []
    for at, result in enumerate(questions):
        mine = slice(at * len(seeds), (at + 1) * len(seeds))
        answers, together = found[mine], None
        if plan.find == "replicas":
            answers, together = _enough_for_all(chains[mine], answers, plan, executor)
        pairs = zip(seeds, answers, strict=True)
        by_seed = tuple(SeedResult(seed, answer, plan.find == "rate") for seed, answer in pairs)
        results.append(replace(result, seeds=by_seed, together=together))
    same = {own.bound_rps for own in plans}
    return Report(plans[0] if len(same) == 1 else plan, tuple(results), varies, tuple(_notes(cases, spec_at)))


def _apart(cases: Sequence[Case]) -> dict[str, RunSpec]:
    """One spec for each that differs in more than its policy, whose options are a named engine's, too."""
    found = {}
    for case in cases:
        policy = {} if names_engine(case.spec.engine, case.spec.cluster.groups) else {"scheduler": "-"}
        found[dump_run(case.spec.replace(name="-", **policy))] = case.spec
    return found


def _bounded(cases: Sequence[Case], plan: Plan) -> list[Plan]:
    """The plan for each case, with the bound of that case's cluster and lengths unless one is given."""
    if plan.bound_rps is not None:
        return [plan] * len(cases)
    alone = plan.find == "replicas"
    known = {
        key: fluid_bound_rps(with_replicas(spec, 1) if alone else spec) for key, spec in _apart(cases).items()
    }
    keys = [next(iter(_apart([case]))) for case in cases]
    return [replace(plan, bound_rps=known[key]) for key in keys]


def _questions(cases: Sequence[Case], plans: Sequence[Plan]) -> list[SchedulerResult]:
    """What is asked of each case, without an answer yet; the number that is searched for is no fact of it."""
    searched = {"replicas": REPLICAS, "rate": OFFERED}[plans[0].find]
    labels = [_label(case) for case in cases]
    configs = [strict.dump(case.spec) for case in cases]
    found = []
    for case, own, label, config, name in zip(cases, plans, labels, configs, names_of(labels, configs), strict=True):
        groups = groups_of(case.spec)
        names = list(dict.fromkeys(group.calibration.name for group in groups))
        told = facts_of(config, calibrations=names, summary=engine_report([group.settings for group in groups]))
        told = {fact: words for fact, words in told.items() if fact != searched and words != NO_SLO}
        gpus = max(group.gpus for group in groups)
        found.append(SchedulerResult(label, (), name=name, gpus=gpus, facts=told, bound_rps=own.bound_rps))
    return found


def _notes(cases: Sequence[Case], spec_at: SpecAt) -> list[str]:
    """What holds of the calibrations and requests of these runs, whatever is found."""
    calibrations = {group.calibration.name: group.calibration for case in cases for group in groups_of(case.spec)}
    asked = (note for spec in _apart(cases).values() for note in workload_notes(spec_at(spec, 1)))
    return [*unproven(list(calibrations.values())), *dict.fromkeys(asked)]


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
