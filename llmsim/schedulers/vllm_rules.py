"""What vLLM's versions differ in, and its orders of requests."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from llmsim.core.request import Request
from llmsim.errors import ConfigError


class Version(NamedTuple):
    """What vLLM has changed."""

    unhashed_first: bool
    """Free blocks that hold nothing to be found again are reused first."""
    threshold_spares_single: bool
    """`long_prefill_token_threshold` is not applied while only one request is in the system."""
    walk_goes_on: bool
    """Under priority a request that preempts itself does not end the walk over `running`, and no preemption makes the
    walk jump over somebody."""


VERSIONS = {
    "0.15": Version(False, False, False),
    "0.19": Version(False, False, False),
    "0.24": Version(True, False, False),
    "0.33": Version(True, True, True),
}
"""Read in the sources of 0.15.0, 0.19.0, 0.24.0 and 0.33.0."""
POLICIES = ("fcfs", "priority")


def one_of(known: Iterable[str], **options: str) -> None:
    """Raise ConfigError for an option that is not among the known ones."""
    for name, value in options.items():
        if value not in known:
            raise ConfigError(f"{name} must be one of {', '.join(known)} but got {value!r}")


def admission_rank(request: Request) -> int:
    """Place in vLLM's `running` list."""
    return request.rank


def urgency(request: Request) -> tuple[int, int, int]:
    """vLLM's order of waiting requests under priority (which is lower there for the more urgent)."""
    return -request.priority, request.arrival_ns, request.id


class ByUrgency(deque[Request]):
    """A queue whose head is the most urgent, wherever a request is put in."""

    def append(self, request: Request) -> None:
        """Put it in its place."""
        insort(self, request, key=urgency)

    appendleft = append
