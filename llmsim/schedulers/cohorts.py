"""Cohorts: decodes that wait and run together, for policies that hold some decodes back while others run.

Decodes that ran in one iteration and have the same target are due again at the same time, for as long as they stay
together. So a policy keeps one DecodeSet for each such group: what is held back stands still as a whole, and an
iteration costs what changes in it. Members move only where a limit cuts through a group, and where groups meet.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from llmsim.core.decodes import DecodeSet
from llmsim.errors import SchedulerError
from llmsim.schedulers.base import by_arrival

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from llmsim.core.request import Request

PRUNE_AFTER = 1024
_due = attrgetter("due_ns")


class Steps:
    """How often any decode of a replica has emitted: the steps that `token_ranges` name."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Cohort(DecodeSet):
    """A DecodeSet that does not advance with every step of its replica, of decodes with one target.

    `tbt_s` is the target, a time between tokens in seconds, `due_ns` when the members must run again (float ns).
    """

    __slots__ = ("_lags", "_prune_at", "_since", "_steps", "due_ns", "tbt_s")

    def __init__(self, block_size: int, steps: Steps, tbt_s: float, due_ns: float = 0.0) -> None:
        super().__init__(block_size)
        self.tbt_s = tbt_s
        self.due_ns = due_ns
        self._steps = steps
        self._since = [0]  # from these own steps on the replica was ahead by _lags
        self._lags = [steps.count]
        self._prune_at = PRUNE_AFTER

    def holds(self, request: Request) -> bool:
        """Whether the request is a member."""
        return request.id in self._members

    def since(self, request: Request) -> int:
        """As in DecodeSet, in steps of the replica (or earlier, if it stands still)."""
        return request.slot_start + self._lags[bisect_right(self._since, request.slot_start) - 1]

    def advance(self, steps: int = 1) -> Collection[Request]:
        """As in DecodeSet, and so many steps of the replica; those that are done are returned in order of arrival."""
        count = self._steps.count
        if count - self.step != self._lags[-1]:  # others ran while it stood still
            self._since.append(self.step)
            self._lags.append(count - self.step)
            if len(self._since) > self._prune_at:
                self._prune()
        self._steps.count = count + steps
        finished = super().advance(steps)
        for request in finished:
            self._translate(request)
        return sorted(finished, key=by_arrival) if len(finished) > 1 else finished

    def leave(self, request: Request) -> None:
        """As in DecodeSet."""
        super().leave(request)
        self._translate(request)

    def move(self, requests: Iterable[Request], other: Cohort) -> None:
        """These members join another cohort."""
        for request in requests:
            self.leave(request)
            other.join(request)

    def split(self, rest: Collection[Request]) -> tuple[Cohort, Cohort]:
        """Two cohorts, without these members and of these members; the smaller is a new one, due at the same time."""
        other = Cohort(self.block_size, self._steps, self.tbt_s, self.due_ns)
        if 2 * len(rest) <= self.size:
            self.move(rest, other)
            return self, other
        staying = {request.id for request in rest}
        self.move([request for request in self.members if request.id not in staying], other)
        return other, self

    def _translate(self, request: Request) -> None:
        """From the cohort's own steps to the replica's: the tokens of a request that has just left."""
        if request.slot_start == self.step:
            return  # it has emitted nothing here
        ranges = request.token_ranges
        last, first = ranges.pop(), ranges.pop()
        since, lags = self._since, self._lags
        at = len(since) - 1 if first >= since[-1] else bisect_right(since, first) - 1
        while first <= last:
            lag = lags[at]
            at += 1
            until = last if at == len(since) else min(last, since[at] - 1)
            if ranges and 0 <= ranges[-1] == first + lag - 1:
                ranges[-1] = until + lag
            else:
                ranges += (first + lag, until + lag)
            first = until + 1

    def _prune(self) -> None:
        """Forget what was before the oldest member joined."""
        oldest = min((request.slot_start for request in self.members), default=self.step)
        cut = bisect_right(self._since, oldest) - 1
        del self._since[:cut], self._lags[:cut]
        self._prune_at = 2 * len(self._since) + PRUNE_AFTER


class Cohorts(DecodeSet):
    """Several cohorts as one set: those that run in a batch, or all of a replica. Sums are taken when asked for."""

    __slots__ = ("_steps", "cohorts")

    def __init__(self, block_size: int, steps: Steps, cohorts: list[Cohort]) -> None:
        self.block_size = block_size
        self.paged = True
        self.cohorts = cohorts
        self._steps = steps

    @property
    def size(self) -> int:  # type: ignore[override]  # read only
        """Members of all."""
        return sum(cohort.size for cohort in self.cohorts)

    @property
    def context(self) -> int:  # type: ignore[override]
        """Tokens of all."""
        return sum(cohort.context for cohort in self.cohorts)

    @property
    def step(self) -> int:  # type: ignore[override]
        """Steps of the replica."""
        return self._steps.count

    @property
    def members(self) -> Sequence[Request]:
        """The requests, cohort by cohort."""
        return list(chain.from_iterable(cohort.members for cohort in self.cohorts))

    @property
    def longest(self) -> int:
        """As in DecodeSet."""
        return max((cohort.longest for cohort in self.cohorts), default=0)

    def of(self, request: Request) -> Cohort:
        """The cohort that holds the request."""
        return next(cohort for cohort in self.cohorts if cohort.holds(request))

    def enter(self, request: Request, tbt_s: float, together: dict[float, Cohort]) -> None:
        """A new decode joins the cohort of its target among those `together`, or begins one."""
        cohort = together.get(tbt_s)
        if cohort is None:
            cohort = together[tbt_s] = Cohort(self.block_size, self._steps, tbt_s)
            self.cohorts.append(cohort)
        cohort.join(request)

    def meet(self, ran: Iterable[Cohort]) -> dict[float, Cohort]:
        """By target, those that ran in one batch, made one: from now on they are due together."""
        together: dict[float, Cohort] = {}
        for cohort in ran:
            if not cohort.size:
                continue
            small, large = cohort, together.setdefault(cohort.tbt_s, cohort)
            if small is not large:
                if small.size > large.size:
                    small, large = large, small
                small.move(list(small.members), large)
                together[cohort.tbt_s] = large
        return together

    def cut(self, tied: Iterable[Cohort], resting: set[int]) -> list[Cohort]:
        """The cohorts, or parts of them, that run; the requests of these ids wait, in cohorts of their own."""
        running = []
        for cohort in tied:
            rest = [request for request in cohort.members if request.id in resting]
            if len(rest) == cohort.size:
                continue
            runs = cohort
            if rest:
                runs, waits = cohort.split(rest)
                self.cohorts.append(waits if runs is cohort else runs)
            running.append(runs)
        return running

    def sort(self) -> None:
        """Put the cohorts in the order in which they are due, without those that nobody is left in."""
        cohorts = self.cohorts
        if len(cohorts) > 1 or (cohorts and not cohorts[0].size):
            self.cohorts = sorted((cohort for cohort in cohorts if cohort.size), key=_due)

    def length(self, request: Request) -> int:
        """As in DecodeSet."""
        return self.of(request).length(request)

    def since(self, request: Request) -> int:
        """As in DecodeSet."""
        return self.of(request).since(request)

    def join(self, request: Request) -> None:
        """Raises SchedulerError: which cohort a request joins is the policy's to say."""
        raise SchedulerError(f"request {request.id} must join one cohort, not all of them")

    def leave(self, request: Request) -> None:
        """As in DecodeSet."""
        self.of(request).leave(request)

    def blocks_needed(self) -> int:
        """As in DecodeSet."""
        return sum(cohort.blocks_needed() for cohort in self.cohorts)

    def needs_block(self, request: Request) -> bool:
        """As in DecodeSet."""
        return self.of(request).needs_block(request)

    def growth(self, first: int, count: int) -> int:
        """As in DecodeSet."""
        return sum(cohort.growth(first, count) for cohort in self.cohorts)

    def steps_to_finish(self) -> int:
        """As in DecodeSet."""
        return min(cohort.steps_to_finish() for cohort in self.cohorts if cohort.size)

    def ring(self) -> tuple[int, ...]:
        """As in DecodeSet, turned to the steps of the replica."""
        size, sums = self.block_size, [0] * self.block_size
        for cohort in self.cohorts:
            ahead = self.step - cohort.step
            for at, blocks in enumerate(cohort.ring()):
                sums[(at + ahead) % size] += blocks
        return tuple(sums)

    def advance(self, steps: int = 1) -> Collection[Request]:
        """All cohorts in the same steps; those that are done are returned in the order in which they were due."""
        began = self.step
        finished: list[tuple[float, int, int, Request]] = []
        for cohort in self.cohorts:
            self._steps.count = began
            finished += [(cohort.due_ns, *by_arrival(request), request) for request in cohort.advance(steps)]
        finished.sort()  # ids differ, so requests are never compared
        return [request for *_, request in finished]
