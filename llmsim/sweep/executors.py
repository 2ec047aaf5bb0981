"""Where runs are run: this process, worker processes, or a dask cluster; all of them concurrent.futures executors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from llmsim.errors import ConfigError
from llmsim.sweep.parallel import workers

T = TypeVar("T")

CONNECT_S = 20
"""Seconds to wait for a dask scheduler, and for its first worker."""
AHEAD = 1000
"""Runs handed to an executor of unknown size at once: enough for a large cluster, few enough to look through often."""


class Inline(Executor):
    """Runs a call when it is submitted, in this process."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """A future that is done. An interruption is raised here, other errors by the future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class Pool:
    """An executor, how many runs it takes at once (None: not known), how many it is handed ahead, and what it is."""

    executor: Executor
    slots: int | None
    ahead: int
    words: str
    warning: str = ""


@contextmanager
def pool(count: int | None = None, dask: str | None = None, executor: Executor | None = None) -> Iterator[Pool]:
    """The executor given, a dask cluster by its scheduler's address, or `count` processes (None: one a core).

    Raises ConfigError for more than one of them, or a cluster that cannot be reached.
    """
    given = {"workers": count, "dask": dask, "executor": executor}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} exclude each other: they say where the runs are run; give one")
    if executor is not None:
        yield Pool(executor, None, AHEAD, type(executor).__name__)
    elif dask is not None:
        with _cluster(dask) as cluster:
            yield cluster
    else:
        with workers(count) as processes:
            if processes is None:
                yield Pool(Inline(), 1, 1, "this process")
            else:
                slots = int(processes._max_workers)  # type: ignore[attr-defined]  # loky's, None: one a core
                yield Pool(processes, slots, 2 * slots, f"{slots} processes")


@contextmanager
def _cluster(address: str) -> Iterator[Pool]:
    """An existing dask.distributed cluster; its workers need the same llmsim, and the files under the same paths."""
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("--dask needs dask.distributed, which is not installed: pip install 'llmsim[dask]'") from None
    try:
        connect: Any = Client  # untyped
        client = connect(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"--dask {address}: no scheduler can be reached there ({why}); start one with `dask scheduler`, and give "
            "the address it prints, such as tcp://host:8786"
        ) from None
    try:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise ConfigError(
                f"--dask {address}: the cluster has no worker; start some with `dask worker {address} --nthreads 1`"
            ) from None
        threads = list(client.nthreads().values())
        warning = (
            "dask workers with several threads simulate no faster than with one, as Python runs one thread at a time; "
            "start them with --nthreads 1 and more --nworkers"
        )
        words = f"dask at {address}, {len(threads)} workers"
        yield Pool(client.get_executor(pure=False), len(threads), AHEAD, words, warning if max(threads) > 1 else "")
    finally:
        client.close()
