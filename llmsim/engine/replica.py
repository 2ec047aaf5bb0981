"""Replica: the loop around one scheduler and one executor. Macro-stepping lives here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from simpy.events import Event

from llmsim.core.batch import Batch
from llmsim.core.clock import Clock, Tick
from llmsim.core.contract.answers import alarm_of, batch_of, repetitions_of
from llmsim.engine.length_limit import LengthLimit
from llmsim.errors import StalledError
from llmsim.schedulers.base import Scheduler

if TYPE_CHECKING:
    from llmsim.core.kvcache import KVCache
    from llmsim.core.request import Request
    from llmsim.engine.recorder import Recorder
    from llmsim.executors.base import Executor

LIVELOCK = 20_000
"""Preemptions in a row without a request finishing that count as going round in circles."""


class Replica:
    """One model instance: its policy, its device, its KV cache.

    `macro` lets a decode-only batch that nothing can change run as one event. The switches of the engine's semantics:
    `first_token_at_prefill_end` (vLLM, Niyama: the iteration that completes a prompt emits token 1; false in SLAI and
    Sarathi's OSDI branch), `regenerate_output` (those two again: a preempted request emits all its output tokens anew).
    No batch is formed before `startup_ns`. `on_finish` is called for every request that finishes or is rejected.
    """

    def __init__(
        self,
        env: Clock,
        scheduler: Scheduler,
        executor: Executor,
        kv: KVCache,
        recorder: Recorder,
        *,
        macro: bool = True,
        first_token_at_prefill_end: bool = True,
        regenerate_output: bool = False,
        startup_ns: int = 0,
        on_finish: Callable[[Request], None] | None = None,
    ) -> None:
        self.env = env
        self.scheduler, self.executor, self.kv = scheduler, executor, kv
        self.recorder = recorder
        self.macro = macro
        self.first_token_at_prefill_end = first_token_at_prefill_end
        self.regenerate_output = regenerate_output
        self.on_finish = on_finish
        self.stopped = False
        self.startup_ns = startup_ns
        self.outstanding = 0  # requests submitted and neither finished nor rejected
        self.prefill_left = 0  # tokens they still have to compute before they decode, at the last commit
        self.generated = 0  # output tokens they have emitted, at the last commit
        self.lengths = LengthLimit(scheduler)
        self.flight: tuple[Batch, Sequence[int]] | None = None  # the run of iterations under way, and their ends
        self.index, self.changed = 0, set[int]()  # `changed` holds `index` when these or the KV have changed
        self._answers_together = scheduler.answers_together
        self._held: list[Request] = []  # done, and answered with the rest of their batch
        overridden = type(scheduler).executed is not Scheduler.executed
        self._executed = scheduler.executed if overridden else None
        self._preempted_in_vain = 0
        self._tell, self._depart = scheduler.add, scheduler.finished  # an arrival, and a request that is done
        self._idle: Event | None = None
        self._in_run = False
        self._run_over: Tick | None = None  # when the run under way is over; an arrival may move it
        self._heeds_arrivals = True
        self._joined_queue_ns: list[int] = []  # arrivals during the present run that did not cut it
        env.process(self._run())

    def submit(self, request: Request) -> None:
        """A request arrives: it is visible to the next batch formed at this instant or later.

        What does not fit the model's limit is refused or shortened here, as the engine does it.
        """
        if not self.lengths.admit(request):
            if self.on_finish is not None:
                self.on_finish(request)
            return
        self.outstanding += 1
        self.prefill_left += request.prefill_tokens
        self.changed.add(self.index)
        self._tell(request)
        if self._in_run and not self._heeds_arrivals:
            self._joined_queue_ns.append(self.env.now)
        else:
            self._wake()

    def stop(self) -> None:
        """Form no further batch; the iteration in flight completes."""
        self.stopped = True
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.succeed()
        elif self._in_run:
            self._in_run = False
            self._cut_run()

    def _run(self) -> Generator[Event, None, None]:
        env, scheduler, executor = self.env, self.scheduler, self.executor
        schedule, execute = scheduler.schedule, executor.execute
        if self.startup_ns:
            yield Tick(env, self.startup_ns)
        now = env.now
        while not self.stopped:
            self.changed.add(self.index)  # once a pass: nobody looks before the next yield
            batch = schedule(now)
            if batch.__class__ is not Batch:
                batch_of(scheduler, batch)
            if batch.preempted or batch.rejected:
                self._settle_losses(batch)
            self.prefill_left -= batch.cached_tokens
            if not batch.prefill_seqs and not batch.decode_tokens:
                if self._try_again(batch):
                    continue
                self._idle = env.event()
                self._set_alarm(now)
                yield self._idle
                now = env.now
                yield Tick(env, now)  # let the other arrivals of the same instant in
                executor.wake(now)
                continue
            waiting = scheduler.queued
            iterations = self._repetitions(batch)
            ends = execute(batch, now, iterations)
            end = ends[-1]
            over = Tick(env, end)
            if iterations == 1:
                yield over
            else:
                self._in_run, self._heeds_arrivals = True, scheduler.heeds_arrivals(batch)
                self.flight, self._run_over = (batch, ends), over
                yield over
                ends, end = self.flight[1], env.now  # fewer and earlier, if an arrival has cut the run
                self._in_run, self.flight = False, None
            self._commit(batch, now, ends, end, waiting)
            now = end

    def _try_again(self, batch: Batch) -> bool:
        """After an empty batch: whether the next one need not be empty, because blocks have become free."""
        return bool(batch.preempted)

    def _cut_run(self) -> None:
        """An arrival: the iteration in flight completes, the rest of the run is dropped."""
        assert self.flight is not None
        assert self._run_over is not None
        ends = self._cut(self.flight[1], self.env.now)
        self.flight = self.flight[0], ends
        self.changed.add(self.index)
        self._run_over = self._run_over.moved(ends[-1])

    def _cut(self, ends: Sequence[int], now: int) -> Sequence[int]:
        """What is left of a run if a request arrives at `now`."""
        return self.executor.truncate(ends, now)

    def _set_alarm(self, now: int) -> None:
        """Wake up when the policy wants to be asked again, unless an arrival comes first."""
        at = alarm_of(self.scheduler, now)
        if at is None:
            return
        idle = self._idle
        alarm = self.env.timeout(at - now)
        assert alarm.callbacks is not None
        alarm.callbacks.append(lambda _: self._wake() if self._idle is idle else None)

    def _repetitions(self, batch: Batch) -> int:
        """Iterations of this batch until the policy may decide otherwise or somebody finishes."""
        if batch.decode_list or not self.macro:
            return 1
        steady = self.scheduler.steady_iterations(batch)
        if steady.__class__ is not int or steady < 1:
            steady = repetitions_of(self.scheduler, steady)
        if steady == 1 or batch.decodes is None:
            return steady
        return min(steady, batch.decodes.steps_to_finish())

    def _settle_losses(self, batch: Batch) -> None:
        self.prefill_left += batch.lost_tokens
        for request in batch.rejected:
            self.prefill_left -= request.remaining_prefill
            self._answer(request)
        self._preempted_in_vain += len(batch.preempted)
        if self._preempted_in_vain > LIVELOCK:
            raise StalledError.livelock(self.scheduler, LIVELOCK, batch.preempted[-1].id, self.kv.num_blocks)
        if self.regenerate_output:
            for request in batch.preempted:
                request._output_target = self.lengths.target_anew(request)

    def _commit(self, batch: Batch, start: int, ends: Sequence[int], last: int, waiting: int) -> None:
        """Tokens, KV growth, finishes and log of the iterations that ran, the last to end at `last`."""
        count = len(ends)
        if self._executed is not None:
            self._executed(batch, start, ends)
        iteration = self.recorder.log(batch, start, ends, last, waiting, self.scheduler, self.kv)
        if self._joined_queue_ns:
            if count > 1:  # a lone iteration is logged as it began; the next batch counts them
                self.recorder.queue_grew(self._joined_queue_ns)
            self._joined_queue_ns = []
        if (decodes := batch.decodes) is not None:
            if count > 1:
                self.kv.take(decodes.growth(1, count - 1))
            self.generated += decodes.size * count
            for request in decodes.advance(count):
                self._finish(request, last)
        for request in batch.decode_list:
            self._emit(request, iteration)
            if request.generated == request._output_target:
                self._finish(request, last)
        if batch.prefill_seqs:
            for request, chunk in zip(batch.prefills, batch.chunks):  # noqa: B905  # add_prefill keeps them equal
                if not request.chunks:
                    request.first_scheduled_ns = start
                request.chunks += count
                request.computed += chunk * count
                self.prefill_left -= chunk * count
                if request.content is not None:
                    self.kv.fill(request, request.computed)
                if request.computed == request.prefill_tokens:
                    self._complete_prompt(request, iteration, last)

    def _complete_prompt(self, request: Request, iteration: int, end: int) -> None:
        request.prefill_end_ns = end
        request.prompt_completions += 1
        self.scheduler.prompt_done(request)
        if self.first_token_at_prefill_end:
            self._emit(request, iteration)
            if request.generated == request._output_target:
                self._finish(request, end)
                return
        self.scheduler.start_decoding(request)

    def _emit(self, request: Request, iteration: int) -> None:
        """One output token outside the DecodeSet, at the end of this iteration."""
        request.generated += 1
        self.generated += 1
        ranges = request.token_ranges
        if ranges and ranges[-1] == -iteration:  # it emitted in the iteration before, too
            ranges[-1] = -(iteration + 1)
        else:
            ranges += (-(iteration + 1), -(iteration + 1))

    def _finish(self, request: Request, end: int) -> None:
        request.finish_ns = end
        self._preempted_in_vain = 0
        self._depart(request)
        if not self._answers_together:
            self._answer(request)
            return
        self._held.append(request)
        if not self.scheduler.resident:
            held, self._held = self._held, []
            for done in held:
                done.finish_ns = end
                self._answer(done)

    def _answer(self, request: Request) -> None:
        self.outstanding -= 1
        self.generated -= request.generated
        if self.on_finish is not None:
            self.on_finish(request)
