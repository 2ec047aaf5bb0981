"""Result: what a run leaves behind, in memory and on disk.

A run directory `<out>/<utc>-<name>-<hash>/` holds config.resolved.yaml, meta.json (where it comes from, wall
times included), summary.json (byte-identical for the same config and seed), requests.parquet,
iterations.parquet and token_ranges.parquet. A run measured on a server, whose iterations nobody saw, holds
token_times.parquet instead of these two. SHA256SUMS says what the files held. It appears complete or not at all, and
never replaces another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from llmsim.errors import ConfigError, SaveError
from llmsim.metrics.timeline import Timeline
from llmsim.runs.folders import NewFolder, saving
from llmsim.runs.frames import comparison_frame, result_html
from llmsim.runs.headline import CONFIG, META, SUMMARY, Headline
from llmsim.runs.loading import check_together, read_config, read_meta, read_summary, read_table
from llmsim.runs.parquet import options
from llmsim.runs.sealed import check_seal, is_sealed, seal
from llmsim.runs.tables import no_iterations

TABLES = ("requests", "iterations", "token_ranges")
MEASURED = ("requests", "token_times")


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Headline):
    """One run. Tables and summary as docs/metrics.md describes them; `summary` is JSON-ready.

    `manifest` says where the run comes from; its `config` (YAML text, or a mapping) is what was run. `token_times`
    (id, time_ns) stands in for `iterations` and `token_ranges` where a server was measured: these are empty then.
    """

    name: str
    requests: pd.DataFrame = field(repr=False)
    iterations: pd.DataFrame = field(repr=False)
    token_ranges: pd.DataFrame = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False, default_factory=dict)
    token_times: pd.DataFrame | None = field(repr=False, default=None)

    @property
    def timeline(self) -> Timeline:
        """When each request's tokens came, simulated or measured. Raises ValueError if the tables contradict."""
        if self.token_times is not None:
            return Timeline.of_times(self.requests, self.token_times)
        return Timeline.of(self.requests, self.iterations, self.token_ranges)

    def save(self, out: str | Path, *, utc: datetime | None = None, files: Mapping[str, str] | None = None) -> Path:
        """Write a new run directory under `out` (made if need be) and return it; `utc` None means now.

        `files` are further texts to put into it, by name.
        Raises ConfigError if `out` is no directory, SaveError (with this result) if it cannot be written to. If the
        run's directory exists, a number is added.
        """
        target = NewFolder(out, self.folder_name(utc))
        try:
            with target as draft, saving(out):
                self.write_texts(draft)
                for name in TABLES if self.token_times is None else MEASURED:
                    table = getattr(self, name)
                    table.to_parquet(draft / f"{name}.parquet", index=False, **options(table))
                for name, text in (files or {}).items():
                    (draft / name).write_text(text, encoding="utf-8")
                seal(draft)
        except SaveError as error:
            error.result = self
            raise
        return target.path

    @classmethod
    def load(cls, folder: str | Path, tables: Collection[str] | None = None) -> Result:
        """Read a run directory; of `tables` (TABLES, None: all) the rows, of the others only the columns.

        Of a long run `tables=["requests"]` takes a fraction of the memory. Raises ConfigError, naming the file, if
        it is not a complete run, if a file is damaged, edited or of a newer llmsim (sealed, loading), and for a table
        that it does not have.
        """
        folder = Path(folder)
        missing = [name for name in (META, SUMMARY, CONFIG) if not (folder / name).is_file()]
        known = MEASURED if (folder / f"{MEASURED[-1]}.parquet").is_file() else TABLES
        missing += [f"{name}.parquet" for name in known if not (folder / f"{name}.parquet").is_file()]
        if missing:
            raise ConfigError(f"{folder}: is no complete run directory, {', '.join(missing)} missing")
        if unknown := [name for name in tables or () if name not in known]:
            raise ConfigError(f"{folder}: a run has the tables {', '.join(known)} but not {unknown[0]!r}")
        meta, summary, config = read_meta(folder / META), read_summary(folder / SUMMARY), read_config(folder / CONFIG)
        wanted = known if tables is None else tables
        check_seal(folder, [META, SUMMARY, CONFIG, *(f"{name}.parquet" for name in wanted)])
        frames = {name: read_table(folder / f"{name}.parquet", rows=name in wanted) for name in known}
        if meta.get("streamed"):  # written as the run went on
            frames = {name: in_order(name, table) for name, table in frames.items()}
        if tables is None and not is_sealed(folder):
            check_together(frames, folder)
        return cls(
            name=str(meta.pop("name", folder.name)),
            summary=summary,
            manifest={"config": config, **meta},
            **({} if known is TABLES else dict(zip(TABLES[1:], no_iterations(), strict=True))),
            **frames,
        )

    @staticmethod
    def compare(results: Sequence[Headline]) -> pd.DataFrame:
        """The headline numbers of several results, one row each, indexed by label."""
        return comparison_frame(results)

    def _repr_html_(self) -> str:
        return result_html(self)


def in_order(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table of TABLES as a run in memory has it: requests by id, iterations by replica and number."""
    keys = ["replica", "iteration"] if name == "iterations" else ["id"]
    return table.sort_values(keys, kind="stable", ignore_index=True)
