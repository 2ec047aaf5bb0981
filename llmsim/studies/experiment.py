"""What the scripts in experiments/ share: size, options, confidence intervals, and what they leave behind.

A script runs as `python experiments/NN_name.py`, and cell by cell in a notebook. With LLMSIM_REDUCED=1 it takes a
size that CI can afford. Results go to experiments/results/NN_name/, or under $LLMSIM_RESULTS.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from llmsim.data import PACKAGE, data_folders
from llmsim.errors import ConfigError, LlmsimError
from llmsim.spec.run_spec import read_run
from llmsim.theory.intervals import interval

if TYPE_CHECKING:
    from types import TracebackType

    from llmsim.sweep.parallel import Progress

T = TypeVar("T")


def run_of(name: str) -> dict[str, Any]:
    """The run in experiments/`name`.yaml, as a mapping. Raises ConfigError if there is no such file."""
    for folder in data_folders("experiments"):
        if (folder / f"{name}.yaml").is_file():
            return read_run(folder / f"{name}.yaml")
    raise ConfigError(f"there is no experiments/{name}.yaml; experiments run from a checkout of the project")


def size(full: T, reduced: T) -> T:
    """`full`, or `reduced` where the environment says LLMSIM_REDUCED=1."""
    return reduced if os.environ.get("LLMSIM_REDUCED") == "1" else full


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose command line is not the experiment's."""
    return "ipykernel" in sys.modules


class Options(NamedTuple):
    """Command line of an experiment."""

    trace: str | None
    json: bool
    seeds: int | None


def options(description: str, argv: Sequence[str] | None = None) -> Options:
    """`[--trace FILE] [--json] [--seeds N]`; all defaults in a notebook. Exits with 2 on a wrong command line.

    From here on an LlmsimError ends the script with one line on stderr, as it ends `llmsim`.
    """
    sys.excepthook = _one_line
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--trace", help="workload: a file, or a shipped one")
    parser.add_argument("--json", action="store_true", help="print the answer as one JSON object, nothing else")
    parser.add_argument("--seeds", type=int, help="seeds, for the confidence intervals")
    given = parser.parse_args([] if argv is None and in_notebook() else argv)
    if given.seeds is not None and given.seeds < 2:
        parser.error(f"--seeds must be at least 2 for an interval but got {given.seeds}")
    return Options(given.trace, given.json, given.seeds)


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, LlmsimError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def with_bands(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """One row a group: mean, `_low` and `_high` (95 %) of each value over the rest, which are the seeds."""
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True))
        for value in values:
            row[value], row[f"{value}_low"], row[f"{value}_high"] = interval(group[value].to_numpy())
        rows.append(row)
    return pd.DataFrame(rows)


def crossing(x: Sequence[float], y: Sequence[float], limit: float) -> float:
    """The x at which y first rises above `limit`, between measured points on straight lines of log y over x.

    `x` ascending, `y` positive. inf if y never does, x[0] if it starts above.
    """
    if not len(x):
        raise ConfigError("crossing needs at least one measured point but got none")
    at = np.asarray(x, dtype=np.float64)
    log_y, target = np.log(np.asarray(y, dtype=np.float64)), float(np.log(limit))
    above = np.flatnonzero(log_y > target)
    if not len(above):
        return float("inf")
    i = int(above[0])
    if i == 0:
        return float(at[0])
    share = (target - log_y[i - 1]) / (log_y[i] - log_y[i - 1])
    return float(at[i - 1] + share * (at[i] - at[i - 1]))


class Published:
    """The table that ends an experiment: what was published, what came out here, and how far apart they are."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, what: str, published: float | str, ours: float | str, *, unit: str = "", relative: bool = True
    ) -> None:
        """A line; numbers get a difference, in percent of the published one or (not `relative`) in its unit."""
        difference = ""
        if isinstance(published, int | float) and isinstance(ours, int | float):
            gap = ours - published
            difference = f"{100 * gap / published:+.1f} %" if relative and published else f"{gap:+.3g}"
        self.rows.append(
            {"what": what, "published": _cell(published, unit), "ours": _cell(ours, unit), "difference": difference}
        )

    def frame(self) -> pd.DataFrame:
        """The lines, as text."""
        return pd.DataFrame(self.rows, columns=["what", "published", "ours", "difference"])

    def __str__(self) -> str:
        return self.frame().to_string(index=False)

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))


def _cell(value: float | str, unit: str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}{' ' + unit if unit else ''}"


def results_folder(name: str) -> Path:
    """Where experiment `name` leaves its files; made if need be."""
    root = os.environ.get("LLMSIM_RESULTS")
    folder = (Path(root) if root else PACKAGE.parent / "experiments" / "results") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_csv(name: str, file: str, frame: pd.DataFrame) -> Path:
    """A table of the experiment as CSV, numbers to six digits (what was simulated is no more exact)."""
    path = results_folder(name) / f"{file}.csv"
    frame.to_csv(path, index=False, float_format="%.6g")
    return path


def finish(name: str, title: str, sections: Sequence[Any], published: Published) -> Path:
    """Write the page (text, tables, figures in this order, then published / ours / difference) and the table as CSV.

    A script prints the table and where the page is; a notebook shows figures and tables itself. Returns the page.
    """
    from llmsim.reports.plots import write_page

    path = results_folder(name) / "page.html"
    write_page(path, title, [*sections, published.frame()])
    write_csv(name, "published", published.frame())
    print(published)
    print(f"figures and tables: {path}")
    return path


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar on stderr for the length of a `with` block; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
