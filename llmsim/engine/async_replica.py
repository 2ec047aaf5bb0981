"""AsyncReplica: an engine that forms each batch while the one before it runs (vLLM's async scheduling).

vLLM from 0.14 on (`async_scheduling`; EngineCore.step_with_batch_queue, two batches deep) schedules iteration k + 1
when k starts, so that the host's time hides behind the device's. The price: k + 1 knows neither who arrived during k
nor that requests ended in k. It does not run those again, since their lengths are known, but their places and KV
blocks are still taken; and where blocks run out they may be preempted like any other (`Scheduler.departing`).

The replica goes on forming k + 1 at the end of k, when everything is known; here is held back what k + 1 must not see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmsim.engine.replica import Replica

if TYPE_CHECKING:
    from llmsim.core.batch import Batch
    from llmsim.core.request import Request


class AsyncReplica(Replica):
    """A replica whose scheduler hears of arrivals and finished requests one iteration late while batches run."""

    def __init__(self, *parts: Any, **switches: Any) -> None:
        super().__init__(*parts, **switches)
        self._arrived: deque[tuple[int, Request]] = deque()
        """Arrivals (ns, request) that the scheduler has not been told of."""
        self._busy = False
        self._unseen = 0
        self._tell, self._depart = self._arrive, self._end
        self.kv.in_flight = 1

    def _arrive(self, request: Request) -> None:
        if self._busy:
            self._arrived.append((self.env.now, request))
        else:
            self.scheduler.add(request)

    def _repetitions(self, batch: Batch) -> int:
        """Not more than one if the formation after the next will know more than the next."""
        self._busy = True
        self._unseen = len(self._arrived)
        return 1 if self._arrived or self.scheduler.departing else super()._repetitions(batch)

    def stop(self) -> None:
        """As ever, also in a run that an arrival has cut: the iteration after the one in flight does not begin."""
        self._in_run = self.flight is not None
        super().stop()

    def _cut(self, ends: Sequence[int], now: int) -> Sequence[int]:
        """The iteration in flight and, for an arrival, the one after, which was formed before the request came."""
        in_flight = self.executor.truncate(ends, now)
        return in_flight if self.stopped else self.executor.truncate(ends, in_flight[-1] + 1)

    def _commit(self, batch: Batch, start: int, ends: Sequence[int], last: int, waiting: int) -> None:
        """As ever; then the next batch may know who had arrived when the last of these iterations began."""
        self._release()
        # A run begins with nobody unseen, so all who are now came during it, whether or not they cut it.
        self._joined_queue_ns = [at for at, _ in self._arrived]
        super()._commit(batch, start, ends, last, waiting + self._unseen)
        began = ends[-2] if len(ends) > 1 else start
        arrived = self._arrived
        while arrived and arrived[0][0] <= began:
            self.scheduler.add(arrived.popleft()[1])

    def _end(self, request: Request) -> None:
        self.scheduler.departing.append(request)

    def _release(self) -> None:
        """One iteration later: the places and blocks of those that ended are free."""
        scheduler = self.scheduler
        self.kv.in_flight = 0  # their results are in
        for request in scheduler.departing:
            scheduler.finished(request)
        scheduler.departing.clear()
        self.kv.in_flight = 1

    def _try_again(self, batch: Batch) -> bool:
        """Nothing could be formed ahead, so the engine waits for the results and then knows everything."""
        again = bool(batch.preempted or self._arrived or self.scheduler.departing)
        self._busy = False
        self._release()
        while self._arrived:
            self.scheduler.add(self._arrived.popleft()[1])
        return again
