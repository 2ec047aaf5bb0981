"""From measurements to the table of a fit: one row a batch, its six sums (`llmsim.core.batch.Work`) and its seconds.

Columns: case (its text, or the iteration's name), the sums, seconds (median of the repeats), spread_pct (distance of
the quartiles in percent of the median; NaN for a single repeat), repeats; for the iterations of a run also `group`, a
stretch of consecutive ones, which the cross-validation keeps together because neighbours are nearly the same batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from llmsim.calibrate.profiling.cases import parse_case
from llmsim.calibrate.profiling.plan import MIN_CASES
from llmsim.core.batch import Work
from llmsim.errors import CalibrationError, ConfigError

SUMS = (
    "prefill_tokens",
    "prefill_seqs",
    "prefill_context",
    "prefill_attention",
    "decode_tokens",
    "decode_context",
)
MEASURED = ("case", "repeat", "seconds", "step_seconds")
"""Columns of a measurements file, a row a timed repeat; seconds of the forward pass, and of the whole step."""

SPREAD_LIMIT_PCT = 5.0
RUN_ROWS = 4000
"""Iterations of a run that are fitted; of more, evenly spaced ones. Ten times as many change no coefficient."""
RUN_GROUPS = 50


def load_measurements(path: str | Path, *, min_cases: int = MIN_CASES) -> pd.DataFrame:
    """The rows of a measurements file (`MEASURED`), checked; further columns are left out.

    Raises CalibrationError with file, row and remedy: no such file, a missing column, a time that is not a positive
    number, a case that cannot be read, a repeat that stands twice, fewer than `min_cases` cases.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise CalibrationError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [name for name in MEASURED if name not in table.columns]
    if missing:
        raise CalibrationError(
            f"{path}: has no column {missing[0]!r}; measurements need {', '.join(MEASURED)} but this has"
            f" {', '.join(map(str, table.columns))}"
        )
    table = table[list(MEASURED)]
    for name in MEASURED[1:]:
        values = pd.to_numeric(table[name], errors="coerce")
        least = 0 if name == "repeat" else np.nextafter(0, 1)
        wrong = ~(np.isfinite(values) & (values >= least))
        if name == "repeat":
            wrong |= values % 1 != 0
        if wrong.any():
            what = "a whole number of at least 0" if name == "repeat" else "a time above 0 s"
            _bad_row(path, table, int(wrong.argmax()), f"{name} must be {what} but is {table[name][wrong.argmax()]!r}")
        table = table.assign(**{name: values.astype(np.int64 if name == "repeat" else np.float64)})
    _check_cases(path, table)
    twice = table.duplicated(["case", "repeat"])
    if twice.any():
        _bad_row(path, table, int(twice.argmax()), "this repeat of this case stands there twice")
    if table["case"].nunique() < min_cases:
        raise CalibrationError(
            f"{path}: holds {table['case'].nunique()} different cases but a fit needs at least {min_cases};"
            " run `llmsim profile` again to go on measuring"
        )
    return table


def _check_cases(path: Path, table: pd.DataFrame) -> None:
    for row, text in enumerate(table["case"]):
        if not isinstance(text, str):
            _bad_row(path, table, row, f"case must be a text but is {text!r}")
    for text in table["case"].unique():
        try:
            parse_case(text)
        except ConfigError as error:
            _bad_row(path, table, int((table["case"] == text).to_numpy().argmax()), str(error))


def _bad_row(path: Path, table: pd.DataFrame, row: int, problem: str) -> NoReturn:
    """Raise about row `row` of the table; the line is that of a file without blank lines."""
    cut = " (an interrupted run may have cut the last line: remove it)" if row == len(table) - 1 else ""
    raise CalibrationError(f"{path}, line {row + 2}: {problem}{cut}")


def fit_table(measurements: pd.DataFrame) -> pd.DataFrame:
    """One row a case, in the order of first appearance, from rows as `load_measurements` returns them."""
    rows = []
    for text, part in measurements.groupby("case", sort=False)["seconds"]:
        low, median, high = np.percentile(part, (25, 50, 75))
        spread = 100 * (high - low) / median if len(part) > 1 else np.nan
        rows.append((text, *_sums(parse_case(str(text)).work()), float(median), float(spread), len(part)))
    return pd.DataFrame(rows, columns=["case", *SUMS, "seconds", "spread_pct", "repeats"])


def _sums(work: Work) -> tuple[int, ...]:
    return tuple(getattr(work, name) for name in SUMS)


def spread_warnings(table: pd.DataFrame, limit_pct: float = SPREAD_LIMIT_PCT) -> list[str]:
    """What to say about repeats that scatter: nothing while the middle half lies within `limit_pct` of the median."""
    wide = table[table["spread_pct"] > limit_pct].sort_values("spread_pct", ascending=False)
    if wide.empty:
        return []
    first = wide.iloc[0]
    return [
        f"{len(wide)} of {len(table)} cases scatter: the middle half of their repeats spans more than {limit_pct:g} %"
        f" of the median; widest is {first['case'].split('=')[0]} with {first['spread_pct']:.1f} %. Something else runs"
        " on the device, or its clocks change; see profiling/README.md"
    ]


def run_table(
    iterations: pd.DataFrame, timings: pd.DataFrame | None = None, *, max_rows: int = RUN_ROWS
) -> pd.DataFrame:
    """The table of the iterations of a run; with more than `max_rows`, of evenly spaced ones.

    Seconds are `forward_ns` of `timings` (a live run, matched by iteration) or, without them, the time from start to
    end of the iteration, host included. Raises CalibrationError for fewer iterations than a fit needs, iterations
    that took no time, and timings that do not match.
    """
    if len(iterations) < MIN_CASES:
        raise CalibrationError(
            f"the run has {len(iterations)} iterations but a fit needs at least {MIN_CASES}; run a longer trace"
        )
    if timings is None:
        nanoseconds = (iterations["end_ns"] - iterations["start_ns"]).to_numpy(dtype=np.int64)
    else:
        nanoseconds = _forward_ns(iterations, timings)
    if (nanoseconds <= 0).any():
        at = int((nanoseconds <= 0).argmax())
        raise CalibrationError(
            f"iteration {iterations['iteration'].iloc[at]} took {nanoseconds[at]} ns; a fit needs times above 0"
        )
    rows = np.unique(np.linspace(0, len(iterations) - 1, min(max_rows, len(iterations))).round().astype(np.int64))
    chosen = iterations.iloc[rows]
    replicas = chosen["replica"] if "replica" in chosen else pd.Series(0, index=chosen.index)
    names = [f"{replica}/{iteration}" for replica, iteration in zip(replicas, chosen["iteration"], strict=True)]
    table = chosen[list(SUMS)].astype(np.int64).reset_index(drop=True)
    table.insert(0, "case", names)
    return table.assign(
        seconds=nanoseconds[rows] / 1e9,
        spread_pct=np.nan,
        repeats=1,
        group=np.arange(len(rows)) * RUN_GROUPS // len(rows),
    )


def _forward_ns(iterations: pd.DataFrame, timings: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """forward_ns in the order of the iterations."""
    if "replica" in iterations and iterations["replica"].nunique() > 1:
        raise CalibrationError("timings belong to the iterations of one replica but the run has several")
    known = timings.set_index("iteration")["forward_ns"]
    missing = ~iterations["iteration"].isin(known.index)
    if missing.any() or known.index.has_duplicates:
        what = "an iteration twice" if known.index.has_duplicates else "no time for some iterations"
        raise CalibrationError(
            f"the timings hold {what} ({int(missing.sum())} missing): they are not those of this run"
        )
    return known.loc[iterations["iteration"]].to_numpy(dtype=np.int64)
