"""What a capacity search found, by seed and by scheduler."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmsim.runs.headline import beyond
from llmsim.studies.capacity.search import Found, Probe, inversions
from llmsim.theory.intervals import Estimate, mean_estimate, ratio_estimate

if TYPE_CHECKING:
    from llmsim.studies.capacity.plan import Plan


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What one search found. `rates`: it searched for the highest rate, else for the fewest replicas."""

    seed: int
    found: Found
    rates: bool = True

    @property
    def value(self) -> float | None:
        """The capacity in requests per second (0 if no rate probed passed), or the replicas; None: not within reach.

        None for a rate means that every rate probed passed, for replicas that no number did.
        """
        keeps, fails = self.found.bracket.keeps, self.found.bracket.fails
        if not self.rates:
            return keeps
        if keeps is None:
            return 0.0
        return None if fails is None else keeps

    @property
    def inversions(self) -> int:
        """Probes that contradict one border between pass and fail; 0: monotone as far as probed."""
        return inversions(self.found.probes, harder_upwards=self.rates)

    @property
    def decisive(self) -> Probe | None:
        """The probe that says why the answer is no better: that of `fails`, else of `keeps`."""
        bracket = self.found.bracket
        return self.found.at(bracket.fails) or self.found.at(bracket.keeps)

    def words(self) -> tuple[str, str]:
        """(keeps, fails) as text; '>= 12' where every rate probed passed, 'none' where none did."""
        keeps, fails = self.found.bracket.keeps, self.found.bracket.fails
        if keeps is None:
            return "none", "-" if fails is None else f"{fails:.4g}"
        if fails is None:
            return (f">= {keeps:.4g}" if self.rates else f"{keeps:.4g}"), "-"
        return f"{keeps:.4g}", f"{fails:.4g}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with every probe in its order."""
        return {
            "seed": self.seed,
            "value": self.value,
            "keeps": self.found.bracket.keeps,
            "fails": self.found.bracket.fails,
            "inversions": self.inversions,
            "probes": [_probe(probe) for probe in self.found.probes],
        }


def _probe(probe: Probe) -> dict[str, Any]:
    judged = {"passed": probe.passed} if probe.judgement is None else probe.judgement.as_dict()
    return {"at": probe.at, **judged}


@dataclass(frozen=True, slots=True)
class SchedulerResult:
    """One scheduler (or calibration, load, ...) over all seeds.

    `together` is the smallest number of replicas that passed with every seed; None: none did, or a rate was searched.
    `name` tells it from the others by what differs, `gpus` is how many cards a replica takes, `facts` what was run
    (llmsim.runs.facts), `bound_rps` its own fluid bound.
    """

    label: str
    seeds: tuple[SeedResult, ...]
    together: int | None = None
    name: str = ""
    gpus: int = 1
    facts: Mapping[str, str] = field(default_factory=dict)
    bound_rps: float | None = None

    @property
    def values(self) -> list[float] | None:
        """The seeds' values; None if any lies outside what was probed, as a mean would hide that."""
        values = [seed.value for seed in self.seeds]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else None

    @property
    def capacity(self) -> Estimate | None:
        """Mean, median and 95 % interval over the seeds; None if any seed's value is not known.

        Where a seed counts as 0, as no rate passed, its capacity lies somewhere below those probed: no interval.
        """
        if self.values is None:
            return None
        estimate = mean_estimate(self.values)
        return estimate if min(self.values) > 0 else replace(estimate, low=None, high=None)

    def ratio_to(self, base: SchedulerResult) -> Estimate | None:
        """Paired ratio over the seeds; None if any value is not known or 0, which has no ratio."""
        if self.values is None or base.values is None or min(*self.values, *base.values) <= 0:
            return None
        return ratio_estimate(self.values, base.values)

    @property
    def unfinished(self) -> int:
        """The most requests that a probe beside a seed's border left unfinished."""
        judged = [probe.judgement for seed in self.seeds for probe in _beside(seed)]
        return max((judgement.censored for judgement in judged if judgement is not None), default=0)

    @property
    def undetermined(self) -> list[int]:
        """Of the seeds whose answer is of a run too short for a verdict on its load: how many requests would tell."""
        judged = [probe.judgement for seed in self.seeds if (probe := seed.found.at(seed.found.bracket.keeps))]
        return [judgement.requests_needed for judgement in judged if judgement and judgement.requests_needed]

    @property
    def most_binding(self) -> str:
        """The condition that decided the most seeds (the first of equals): its name, with the class."""
        names = []
        for seed in self.seeds:
            probe = seed.decisive
            if probe is not None and probe.judgement is not None:
                check = probe.judgement.binding
                names.append(f"{check.slo_class} {check.name}" if check.slo_class else check.name)
        return statistics.mode(names) if names else "-"


def _beside(seed: SeedResult) -> list[Probe]:
    bracket = seed.found.bracket
    return [probe for probe in (seed.found.at(bracket.keeps), seed.found.at(bracket.fails)) if probe is not None]


@dataclass(frozen=True, slots=True)
class Answers:
    """All schedulers of a search. `varies`: whether another seed is another workload.

    `notes` are sentences on calibrations and lengths that hold whatever was found.
    """

    plan: Plan
    schedulers: tuple[SchedulerResult, ...]
    varies: bool
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """What `llmsim simulate` warns of, too: of the runs beside the borders, which the answers hang on."""
        probes = [probe for result in self.schedulers for seed in result.seeds for probe in _beside(seed)]
        judged = [probe.judgement for probe in probes if probe.judgement is not None]
        stretched = beyond([report for judgement in judged for report in judgement.calibrations])
        return [*self.notes, *([stretched] if stretched else [])]
