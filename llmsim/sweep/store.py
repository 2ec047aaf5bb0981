"""The folder of a sweep: one small file a run, there whole or not at all, and the plan they belong to.

::

    sweep.json              the plan: points, seeds, keys
    points/<key>.json       one run, written when it is done; the key is a digest of all that decides its result
    results.parquet         one row a run      (once all runs are there)
    means.parquet           one row a point and figure: mean, interval, difference to the reference
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.errors import ConfigError
from llmsim.runs.folders import saving
from llmsim.runs.manifest import git_state
from llmsim.sweep.points import Plan
from llmsim.sweep.worker import Outcome

if TYPE_CHECKING:
    import pandas as pd

PLAN, POINTS = "sweep.json", "points"
RESULTS, MEANS = "results.parquet", "means.parquet"
DIGEST = "sha256"
"""Of the rest of a file, in it: figures of another run are numbers like any other."""
AGAIN = "delete it and run the sweep again"


class Store:
    """Where outcomes are kept: a folder, or (None) memory alone."""

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._known: dict[str, Outcome] = {}
        self._commit: str | None = None
        if self.folder is not None:
            if self.folder.exists() and not self.folder.is_dir():
                raise ConfigError(f"{self.folder}: a sweep is kept in a folder, but this is a file; give another --out")
            with saving(self.folder):
                (self.folder / POINTS).mkdir(parents=True, exist_ok=True)
            state = git_state()
            self._commit = None if state is None else state["commit"]

    @classmethod
    def existing(cls, folder: str | Path) -> Store:
        """The store of a folder that holds a sweep. ConfigError for any other."""
        if not (Path(folder) / PLAN).is_file():
            raise ConfigError(f"{folder}: is no folder of a sweep, as it has no {PLAN}; give what --out was")
        return cls(folder)

    def read(self, keys: Iterable[str]) -> list[str]:
        """Take in the runs of these keys that are on disk; returns warnings. ConfigError for a damaged file."""
        others = set()
        for key in keys:
            if self.folder is None or not (path := self._path(key)).is_file():
                continue
            mapping = _read(path)
            commit = mapping.pop("commit", None)
            try:
                outcome = Outcome(**mapping)
            except TypeError as error:
                raise ConfigError(f"{path}: is no run of a sweep: {error}; {AGAIN}") from None
            if outcome.key != key:
                raise ConfigError(f"{path}: holds the run {outcome.key}, not the one it is named after; {AGAIN}")
            self._known[key] = outcome
            if commit != self._commit:
                others.add(str(commit)[:12])
        return [
            f"{self.folder} holds runs made by other code ({', '.join(sorted(others))}) than this; if results may have "
            "changed between them, delete the folder and run again"
        ] if others else []  # fmt: skip

    def save(self, outcome: Outcome) -> None:
        """Keep an outcome; on disk it survives whatever happens next."""
        self._known[outcome.key] = outcome
        if self.folder is not None:
            _write(self._path(outcome.key), {**asdict(outcome), "commit": self._commit})

    def get(self, key: str) -> Outcome | None:
        """The outcome of that key, if it is known."""
        return self._known.get(key)

    def done(self, key: str) -> bool:
        """Whether the run has figures; a failed one is run again."""
        outcome = self._known.get(key)
        return outcome is not None and not outcome.failed

    def plan(self) -> Plan | None:
        """The plan that the folder holds, None for none. ConfigError for a damaged file."""
        if self.folder is None or not (self.folder / PLAN).is_file():
            return None
        return Plan.of(_read(self.folder / PLAN), str(self.folder / PLAN))

    def save_plan(self, plan: Plan) -> None:
        """Replace the plan of the folder; tables of another plan go with it."""
        if self.folder is None or plan == self.plan():
            return
        for name in (RESULTS, MEANS):
            (self.folder / name).unlink(missing_ok=True)
        _write(self.folder / PLAN, plan.as_dict())

    def save_tables(self, results: pd.DataFrame, means: pd.DataFrame) -> None:
        """Both tables as Parquet; the same tables give the same bytes."""
        if self.folder is None:
            return
        for name, table in ((RESULTS, results), (MEANS, means)):
            draft = self.folder / f".{name}-{secrets.token_hex(4)}"
            try:
                with saving(self.folder / name):
                    table.to_parquet(draft, index=False, compression="zstd")
                    draft.replace(self.folder / name)
            finally:
                draft.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / POINTS / f"{key}.json"


def _read(path: Path) -> dict[str, Any]:
    """What `_write` wrote. ConfigError for a file that is damaged, or was changed since."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}; {AGAIN}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold an object but holds {type(loaded).__name__}; {AGAIN}")
    if loaded.pop(DIGEST, None) != _digest(loaded):
        raise ConfigError(f"{path}: is not what was saved, by its {DIGEST}: damaged, or edited; {AGAIN}")
    return loaded


def _digest(mapping: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(mapping, sort_keys=True).encode()).hexdigest()


def _write(path: Path, mapping: dict[str, Any]) -> None:
    """Whole or not at all, and on the disk before it has its name: a crash leaves no half file."""
    draft = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        with saving(path):
            with draft.open("w", encoding="utf-8") as file:
                json.dump({**mapping, DIGEST: _digest(mapping)}, file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
