"""Plans: which cases a profile times, and in which order.

A plan file (profiling/plans/*.yaml) either lists its `cases` in the grammar of `profiling.cases`, or gives the
limits of a `grid`, from which `default_plan` draws them. The order is shuffled by the seed: a device that slows down
while it is measured then slows all kinds of cases alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmsim.calibrate.profiling.cases import Case, parse_case
from llmsim.calibrate.profiling.grid import Limits, grid_cases
from llmsim.data import data_folders
from llmsim.errors import ConfigError, same_or_all
from llmsim.spec import strict
from llmsim.spec.run_spec import read_yaml

MIN_CASES = 20
"""Fewer cases cannot show which form holds: 4 a fold."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Cases in the order they are timed, where they come from, and the names of those that were taken out of it."""

    cases: tuple[Case, ...]
    source: str
    seed: int = 0
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Two cases of one name could not be told apart in the measurements."""
        if not self.cases:
            raise ConfigError(f"{self.source}: a plan needs at least one case but has none")
        names = [case.name for case in self.cases]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"{self.source}: two cases are called {twice!r}; give each a name of its own")

    def strata(self) -> dict[str, int]:
        """How many cases of each stratum."""
        found: dict[str, int] = defaultdict(int)
        for case in self.cases:
            found[case.stratum] += 1
        return dict(sorted(found.items()))

    def within(self, limits: Limits) -> Plan:
        """The plan without the cases that exceed the limits; their names are in `dropped`.

        Raises ConfigError, with the first reason, if no case is left.
        """
        kept = tuple(case for case in self.cases if not limits.problem(case))
        if not kept:
            first = self.cases[0]
            raise ConfigError(
                f"{self.source}: no case fits this device and model; {first.name} has {limits.problem(first)}."
                " Use a smaller plan, or none for the default one"
            )
        over = tuple(case.name for case in self.cases if limits.problem(case))
        return replace(self, cases=kept, dropped=self.dropped + over)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The `grid` of a plan file: what `default_plan` takes."""

    max_model_len: int
    kv_tokens: int
    max_tokens: int
    max_seqs: int
    cases: int = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A plan file."""

    description: str = ""
    seed: int = 0
    cases: tuple[str, ...] | None = None
    grid: _Grid | None = None


def list_plans() -> list[str]:
    """Names of the shipped plans, sorted."""
    return sorted(_shipped())


def load_plan(path_or_name: str | Path) -> Plan:
    """The plan in a .yaml file, or the shipped one of that name.

    Raises ConfigError for an unknown name or key, a case that cannot be read, and two cases of one name.
    """
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        known = _shipped()
        if str(path_or_name) not in known:
            raise ConfigError(
                f"there is no plan {str(path_or_name)!r}.{same_or_all(str(path_or_name), known)} A plan of your own is"
                " the path of a file that ends in .yaml"
            )
        path = known[str(path_or_name)]
    held = strict.load(_File, read_yaml(path), str(path), "plan")
    if (held.cases is None) == (held.grid is None):
        raise ConfigError(f"{path}: a plan has either 'cases' or 'grid'; it has {'both' if held.cases else 'neither'}")
    if held.grid is not None:
        grid = held.grid
        try:
            return replace(
                default_plan(
                    max_model_len=grid.max_model_len,
                    kv_tokens=grid.kv_tokens,
                    max_tokens=grid.max_tokens,
                    max_seqs=grid.max_seqs,
                    cases=grid.cases,
                    seed=held.seed,
                ),
                source=f"{path.name} (grid)",
            )
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    try:
        cases = [parse_case(text) for text in held.cases or ()]
        return Plan(_shuffled(cases, held.seed), path.name, held.seed)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def default_plan(
    *, max_model_len: int, kv_tokens: int, max_tokens: int, max_seqs: int, cases: int = 160, seed: int = 0
) -> Plan:
    """`cases` cases that cover the limits (see `grid`); fewer only where the limits hold no more different ones.

    A sequence has at most `max_model_len` keys, a batch at most `max_tokens` query tokens, `max_seqs` sequences, and
    KV blocks of 16 for `kv_tokens`. The same arguments give the same plan. Raises ConfigError for limits that no
    decode fits, and for fewer than 20 cases.
    """
    if cases < MIN_CASES:
        raise ConfigError(f"a default plan needs at least {MIN_CASES} cases but got {cases}")
    limits = Limits(max_model_len=max_model_len, kv_tokens=kv_tokens, max_tokens=max_tokens, max_seqs=max_seqs)
    source = (
        f"default plan: {max_model_len:,} positions, {kv_tokens:,} tokens of KV, {max_tokens:,} tokens and"
        f" {max_seqs:,} sequences a batch"
    )
    return Plan(_shuffled(grid_cases(limits, cases, seed), seed), source, seed)


def fit_to_budget(
    plan: Plan,
    seconds_per_case: Mapping[str, float] | Callable[[Case], float],
    budget_s: float,
    repeats: int,
) -> Plan:
    """The plan, or as many of its cases as can be timed `repeats` times each in `budget_s` seconds.

    `seconds_per_case` is what one timing of a case takes: by the case's name, or a function of the case. Corners stay
    (the measured box is theirs); of every other stratum the same share goes, from the end of the order. The names
    of what goes are in `dropped`. Raises ConfigError if fewer than 20 cases would be left.
    """
    if repeats < 1:
        raise ConfigError(f"repeats must be at least 1 but got {repeats}")
    price = seconds_per_case if callable(seconds_per_case) else _by_name(seconds_per_case)
    seconds = {case.name: price(case) * repeats for case in plan.cases}
    if sum(seconds.values()) <= budget_s:
        return plan
    sizes, seen = plan.strata(), dict.fromkeys(plan.strata(), 0)
    turn: dict[str, float] = {}
    for case in plan.cases:
        seen[case.stratum] += 1
        turn[case.name] = 0.0 if case.stratum == "corner" else seen[case.stratum] / sizes[case.stratum]
    kept, spent = set(), 0.0
    for case in sorted(plan.cases, key=lambda case: turn[case.name]):
        spent += seconds[case.name]
        if spent > budget_s:
            break
        kept.add(case.name)
    if len(kept) < min(MIN_CASES, len(plan.cases)):
        raise ConfigError(
            f"{budget_s:.0f} s are enough for {len(kept)} of {len(plan.cases)} cases timed {repeats} times, and a fit"
            f" needs {MIN_CASES}; all take {sum(seconds.values()):.0f} s. Give more --minutes or a smaller plan"
        )
    dropped = tuple(case.name for case in plan.cases if case.name not in kept)
    return replace(plan, cases=tuple(case for case in plan.cases if case.name in kept), dropped=plan.dropped + dropped)


def _by_name(seconds: Mapping[str, float]) -> Callable[[Case], float]:
    def price(case: Case) -> float:
        if case.name not in seconds:
            raise ConfigError(f"no time is known for case {case.name!r}; probe every case of the plan first")
        return seconds[case.name]

    return price


def _shuffled(cases: list[Case], seed: int) -> tuple[Case, ...]:
    # A stream of its own: the cases of a seed are then the same in whatever order they run.
    order = np.random.default_rng([seed, 1]).permutation(len(cases))
    return tuple(cases[place] for place in order)


def _shipped() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in data_folders("profiling/plans"):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found
