"""Policies: which tokens run next on one replica. base.py says what a policy is; one policy a file.

ContinuousBatching is the rung on which most policies stand: override one hook. docs/write-a-scheduler.md is the guide.
"""

from __future__ import annotations

from llmsim.schedulers.base import Scheduler
from llmsim.schedulers.continuous import ContinuousBatching

__all__ = [
    "ContinuousBatching",
    "Scheduler",
]
