"""Result: what a run leaves behind, in memory and on disk.

A run directory `<out>/<utc>-<name>-<hash>/` holds config.resolved.yaml, meta.json (where it comes from, wall
times included), summary.json (byte-identical for the same config and seed), requests.parquet,
iterations.parquet and token_ranges.parquet. A run measured on a server, whose iterations nobody saw, holds
token_times.parquet instead of these two. It appears complete or not at all, and never replaces another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from llmsim.errors import ConfigError
from llmsim.metrics.timeline import Timeline
from llmsim.runs.folders import NewFolder, slug
from llmsim.runs.parquet import options
from llmsim.runs.tables import no_iterations
from llmsim.runs.text import comparison_frame, result_html

TABLES = ("requests", "iterations", "token_ranges")
MEASURED = ("requests", "token_times")
CONFIG, META, SUMMARY = "config.resolved.yaml", "meta.json", "summary.json"


class Headline:
    """What a run is called, what came out of it and where it comes from: `name`, `summary`, `manifest`."""

    name: str
    summary: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def label(self) -> str:
        """What tells this run from the others of a comparison: its scheduler, else its name."""
        return str(self.summary.get("scheduler") or self.name)

    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers, one sentence each; empty if nothing."""
        lines = list(self.summary.get("notes", []))
        dropped = self.summary.get("requests", {}).get("dropped_from_trace") or {}
        if dropped:
            lines.append("left out of the trace: " + ", ".join(f"{n:,} rows ({why})" for why, n in dropped.items()))
        if clipped := self.summary.get("requests", {}).get("clipped"):
            lines.append(f"{clipped:,} requests, prompt and output, were longer than the model takes and scaled down")
        judged = self.summary.get("saturation", {})
        if judged.get("verdict") in ("near saturation", "overloaded"):
            lines.append(f"{judged['verdict']}: {judged['reason']}")
        if beyond := beyond_calibration([self]):
            lines.append(beyond)
        return lines

    def folder_name(self, utc: datetime | None = None) -> str:
        """`<utc>-<name>-<hash of label and config>`; None: now."""
        stamp = (utc or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(f"{self.label}\n{config_text(self.manifest)}".encode()).hexdigest()[:8]
        return f"{stamp}-{slug(self.name)}-{digest}"

    def write_texts(self, folder: Path) -> None:
        """The files of a run directory that hold no tables."""
        meta = {"name": self.name} | self.manifest
        meta.pop("config", None)
        (folder / CONFIG).write_text(config_text(self.manifest), encoding="utf-8")
        (folder / META).write_text(to_json(meta), encoding="utf-8")
        (folder / SUMMARY).write_text(to_json(self.summary), encoding="utf-8")


def config_text(manifest: Mapping[str, Any]) -> str:
    """The config of a manifest as YAML."""
    config = manifest.get("config", {})
    if isinstance(config, str):
        return config
    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


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
        Raises ConfigError if `out` is no directory. If the run's directory exists, a number is added.
        """
        target = NewFolder(out, self.folder_name(utc))
        with target as draft:
            self.write_texts(draft)
            for name in TABLES if self.token_times is None else MEASURED:
                table = getattr(self, name)
                table.to_parquet(draft / f"{name}.parquet", index=False, **options(table))
            for name, text in (files or {}).items():
                (draft / name).write_text(text, encoding="utf-8")
        return target.path

    @classmethod
    def load(cls, folder: str | Path, tables: Collection[str] | None = None) -> Result:
        """Read a run directory; of `tables` (TABLES, None: all) the rows, of the others only the columns.

        Of a long run `tables=["requests"]` takes a fraction of the memory. Raises ConfigError, naming the file, if
        it is not a complete run, and for a table that it does not have.
        """
        folder = Path(folder)
        missing = [name for name in (META, SUMMARY, CONFIG) if not (folder / name).is_file()]
        known = MEASURED if (folder / f"{MEASURED[-1]}.parquet").is_file() else TABLES
        missing += [f"{name}.parquet" for name in known if not (folder / f"{name}.parquet").is_file()]
        if missing:
            raise ConfigError(f"{folder}: is no complete run directory, {', '.join(missing)} missing")
        if unknown := [name for name in tables or () if name not in known]:
            raise ConfigError(f"{folder}: a run has the tables {', '.join(known)} but not {unknown[0]!r}")
        meta = _read_json(folder / META)
        wanted = known if tables is None else tables
        frames = {name: _table(folder / f"{name}.parquet", rows=name in wanted) for name in known}
        if meta.get("streamed"):  # written as the run went on
            frames = {name: in_order(name, table) for name, table in frames.items()}
        return cls(
            name=str(meta.pop("name", folder.name)),
            summary=_read_json(folder / SUMMARY),
            manifest={"config": (folder / CONFIG).read_text(encoding="utf-8"), **meta},
            **({} if known is TABLES else dict(zip(TABLES[1:], no_iterations(), strict=True))),
            **frames,
        )

    @staticmethod
    def compare(results: Sequence[Headline]) -> pd.DataFrame:
        """The headline numbers of several results, one row each, indexed by label."""
        return comparison_frame(results)

    def _repr_html_(self) -> str:
        return result_html(self)


def _table(path: Path, *, rows: bool) -> pd.DataFrame:
    """A table, or its columns without a row."""
    table: pd.DataFrame = pd.read_parquet(path) if rows else pq.read_schema(path).empty_table().to_pandas()
    return table


def in_order(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table of TABLES as a run in memory has it: requests by id, iterations by replica and number."""
    keys = ["replica", "iteration"] if name == "iterations" else ["id"]
    return table.sort_values(keys, kind="stable", ignore_index=True)


def beyond_calibration(results: Sequence[Headline]) -> str:
    """One sentence on how far these runs (of one calibration) left what it was measured on; empty if they did not."""
    summaries = [result.summary for result in results]
    reports = [r for s in summaries for r in s.get("calibrations", [s.get("calibration", {})])]
    boxes = [box for box in reports if box.get("iterations_outside_box")]
    if not boxes:
        return ""
    shares = sorted(box["share_outside_box"] for box in boxes)
    most_outside = f"{shares[-1]:.1%}" if shares[-1] >= 0.0005 else "below 0.1%"
    share = " to ".join(dict.fromkeys((f"{shares[0]:.1%}" if shares[0] >= 0.0005 else most_outside, most_outside)))
    worst: dict[str, dict[str, Any]] = {}
    for violation in (v for box in boxes for v in box["violations"]):
        known = worst.setdefault(f"{violation['quantity']} {violation['side']}", violation)
        if abs(violation["worst"] - violation["low"]) > abs(known["worst"] - known["low"]):
            worst[f"{violation['quantity']} {violation['side']}"] = violation
    most = sorted(worst.values(), key=lambda v: -v["share_of_iterations"])[:3]
    what = ", ".join(f"{v['quantity']} {v['worst']:,} (measured {v['low']:,} to {v['high']:,})" for v in most)
    names = sorted({box["name"] for box in boxes})
    return (
        f"{share} of the iterations lie outside what the calibration {' and '.join(names)} was measured on, so their "
        f"times are extrapolated: {what}; `llmsim calibrations show {names[0]}` shows its sources"
    )


def to_json(value: dict[str, Any]) -> str:
    """JSON text, in the given order; the same value gives the same bytes."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold an object but holds {type(loaded).__name__}")
    return loaded
