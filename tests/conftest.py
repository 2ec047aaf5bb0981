"""The folder of shared real data, where there is one; how properties are tried; and who may run beside whom."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.effort import examples

ROOT = Path(__file__).resolve().parents[1]
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:  # there is a worker for each core: threads of linear algebra would only be in each other's way
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

if find_spec("hypothesis"):  # a GPU machine without a network may lack it, and its tests need none
    from hypothesis import settings

    # The same examples in every run and every worker; no deadline, since the machine's other cores are busy, too.
    settings.register_profile("tests", max_examples=examples(100, 40), deadline=None, derandomize=True)
    settings.load_profile("tests")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real traces, measurements and decision traces; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("LLMSIM_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set LLMSIM_SHARED)")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs torch or a GPU where there is none."""
    has_torch = find_spec("torch") is not None
    for item in items:
        if ("live" in item.keywords or "gpu" in item.keywords) and not has_torch:
            item.add_marker(pytest.mark.skip(reason="torch is not installed (make test-live)"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test marked `alone` waits until the other workers' tests are done, and they until it is."""
    if not IS_WORKER:
        return (yield)
    with turn(Path(item.config.option.basetemp).parent, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the run's lock for oneself or with others. Who waits for it holds the door, so that nobody passes him."""
    import fcntl

    with (folder / "running.lock").open("w") as running:
        with (folder / "door.lock").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
