"""Capacity: the highest arrival rate that keeps the service levels, or the fewest replicas that keep them.

    from llmsim.studies.capacity import Criterion, Plan, find_capacity
    report = find_capacity(load_runs("run.yaml"), Plan(criterion=Criterion.parse(["p99_ttft<=1s"])))
    print(report.text())

Searches (`search`, `osdi`) drive any oracle; `runs` makes simulations of them; docs/capacity.md has the guide.
"""

from __future__ import annotations

from llmsim.studies.capacity.answers import SchedulerResult, SeedResult
from llmsim.studies.capacity.condition import Condition, parse_condition
from llmsim.studies.capacity.criterion import Check, Criterion, Judgement
from llmsim.studies.capacity.osdi import osdi_criterion, osdi_search
from llmsim.studies.capacity.plan import Plan
from llmsim.studies.capacity.report import Report
from llmsim.studies.capacity.search import Bracket, Found, Probe, drive, rate_search, replica_search
from llmsim.studies.capacity.study import find_capacity

__all__ = [
    "Bracket",
    "Check",
    "Condition",
    "Criterion",
    "Found",
    "Judgement",
    "Plan",
    "Probe",
    "Report",
    "SchedulerResult",
    "SeedResult",
    "drive",
    "find_capacity",
    "osdi_criterion",
    "osdi_search",
    "parse_condition",
    "rate_search",
    "replica_search",
]
