"""The loop of a sweep: hand out tasks, keep what comes back as it comes, stop at the first error or go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from typing import TYPE_CHECKING

from llmsim.errors import SweepError
from llmsim.spec import strict
from llmsim.sweep.worker import Outcome, run_task

if TYPE_CHECKING:
    from llmsim.sweep.executors import Pool
    from llmsim.sweep.points import Task

Keep = Callable[[Outcome], None]


def drive(tasks: Sequence[Task], pool: Pool, keep: Keep, *, continue_on_error: bool) -> Outcome | None:
    """Run the tasks; `keep` is called with each outcome, in this thread, as soon as it is there.

    Returns the failure that stopped it; None if it came to the end. Runs in flight when it stops are still kept; an
    interruption (Ctrl-C) keeps those that are back. Raises SweepError where the executor itself broke down.
    """
    waiting = deque(tasks)
    running: dict[Future[Outcome], Task] = {}
    failure: Outcome | None = None
    try:
        while (waiting and failure is None) or running:
            while waiting and failure is None and len(running) < pool.ahead:
                task = waiting.popleft()
                running[_submit(pool, task)] = task
            back, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in back:
                outcome = _outcome(future, running.pop(future))
                keep(outcome)
                if outcome.failed and failure is None and not continue_on_error:
                    failure = outcome
            if failure is not None:
                running = {future: task for future, task in running.items() if not future.cancel()}
    except BaseException as error:
        for future in running:
            if future.done() and not future.cancelled() and future.exception() is None:
                keep(future.result())
            elif isinstance(error, Exception):  # after an interruption the workers are killed instead
                future.cancel()
        raise
    return failure


def _submit(pool: Pool, task: Task) -> Future[Outcome]:
    try:
        return pool.executor.submit(run_task, task)
    except (BrokenExecutor, RuntimeError) as error:
        raise _broken(error) from error


def _outcome(future: Future[Outcome], task: Task) -> Outcome:
    """What came back; an error on the way there (a worker without llmsim, one that died) fails the task."""
    try:
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise _broken(error) from error
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(key=task.key, seed=task.seed, spec=strict.dump(task.spec), figures={}, error=words)


def _broken(error: BaseException) -> SweepError:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return SweepError(
        f"the workers broke down ({words[:300]}), perhaps for lack of memory; what is done is kept, so the same "
        "command goes on: give it fewer --workers"
    )
