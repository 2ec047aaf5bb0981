"""Where two records of summary_child.py differ: the first key of each part, with both values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

ABSENT = "absent"
LONGEST = 300
"""Characters of a value that are shown."""


class Difference(NamedTuple):
    """The first key of a part (`summary`, `tables`, ...) that differs, its values, and how many more keys differ."""

    key: str
    here: str
    there: str
    more: int = 0

    def __str__(self) -> str:
        more = f" (and {self.more} more)" if self.more else ""
        return f"{self.key}: {_short(self.here)} here, {_short(self.there)} there{more}"


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[Difference]:
    """One for each part that is not equal byte for byte, summaries first; empty if the records are equal."""
    mine, theirs = dict(_parts(here)), dict(_parts(there))
    names = [*mine, *(name for name in theirs if name not in mine)]
    return [_first(name, mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)]


def explain(difference: Difference, here: list[Path], there: list[Path]) -> Difference:
    """A difference of a table's digests as the first row that differs, read from the runs' directories.

    `here` and `there` are the directories of all runs of the spec. Other differences stay as they are, and so does
    one that the saved tables do not show.
    """
    words = difference.key.split(".")
    if len(words) != 4 or words[1] != "tables":
        return difference
    try:
        at, table, column = int(words[0].removeprefix("run ")), words[2], words[3]
        mine, theirs = (pd.read_parquet(runs[at] / f"{table}.parquet")[column].tolist() for runs in (here, there))
    except (OSError, KeyError, IndexError):
        return difference
    for row, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if repr(one) != repr(other):
            return difference._replace(key=f"{difference.key}, row {row}", here=repr(one), there=repr(other))
    return difference


def _parts(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of the parts of a record and their text."""
    runs = record["runs"]
    for part in ("summary", "tables", "manifest", "warnings"):
        for at, run in enumerate(runs):
            if part in run:
                yield f"run {at}.{part}", run[part] if isinstance(run[part], str) else json.dumps(run[part])
    yield "error", record["error"] or ""
    for name, text in record["printed"].items():
        yield f"printed.{name}", str(text)


def _first(name: str, here: str | None, there: str | None) -> Difference:
    """The first key of two texts that differ; of texts that are no JSON the first line."""
    mine, theirs = list(_leaves(name, here)), list(_leaves(name, there))
    known, other = dict(mine), dict(theirs)
    keys = [*known, *(key for key in other if key not in known)]
    unlike = [key for key in keys if known.get(key, ABSENT) != other.get(key, ABSENT)]
    if unlike:
        return Difference(unlike[0], known.get(unlike[0], ABSENT), other.get(unlike[0], ABSENT), len(unlike) - 1)
    moved = [(one, two) for (one, _), (two, _) in zip(mine, theirs, strict=True) if one != two]
    one, two = moved[0] if moved else ("this text", "another text of the same values")
    return Difference(f"{name}, order or spelling", one, two)


def _leaves(name: str, text: str | None) -> Iterator[tuple[str, str]]:
    """Keys with a dot between levels, and their values as JSON, in the order of the text."""
    if text is None:
        return
    try:
        value = json.loads(text)
    except ValueError:
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{name}, line {number}", line
        return
    yield from _flat(name, value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inside or not value:
        yield name, json.dumps(value)
        return
    for key, below in inside:
        yield from _flat(f"{name}.{key}", below)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
