"""What a capacity search found, as text and as JSON-ready data without times or paths of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmsim.studies.capacity.answers import Answers
from llmsim.studies.capacity.text import report_text

if TYPE_CHECKING:
    from llmsim.studies.capacity.answers import SchedulerResult


class Report(Answers):
    """What was found, for people and for machines."""

    __slots__ = ()

    def text(self) -> str:
        """For a terminal of 100 columns."""
        return report_text(self)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; the same arguments give the same."""
        plan, base = self.plan, self.schedulers[0]
        return {
            "find": plan.find,
            "unit": "requests/s" if plan.find == "rate" else "replicas",
            "rule": plan.rule,
            "keep": [condition.text for condition in plan.criterion.conditions],
            "allow_overload": plan.criterion.allow_overload,
            "start": plan.first,
            "precision": plan.precision if plan.find == "rate" and plan.rule == "bisection" else None,
            "bound_rps": plan.bound_rps,
            "seeds": [seed.seed for seed in base.seeds],
            "seeds_differ": self.varies,
            "schedulers": [self._scheduler(result, base) for result in self.schedulers],
        }

    def _scheduler(self, result: SchedulerResult, base: SchedulerResult) -> dict[str, Any]:
        capacity, ratio = result.capacity, result.ratio_to(base)
        return {
            "scheduler": result.label,
            "run": result.name,
            "of": dict(result.facts),
            **({} if self.plan.bound_rps is not None else {"bound_rps": result.bound_rps}),
            "answer": result.together if self.plan.find == "replicas" else None if capacity is None else capacity.mean,
            "over_seeds": None if capacity is None else capacity.as_dict(),
            "ratio_to_first": None if ratio is None or result is base else ratio.as_dict(),
            "binding": result.most_binding,
            "unfinished": result.unfinished,
            "by_seed": [seed.as_dict() for seed in result.seeds],
        }
