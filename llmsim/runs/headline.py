"""Headline: what a run is called, what came out of it, where it comes from, and what to know before trusting it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from llmsim.runs.folders import saving, slug

FORMAT = 1
"""Of run directories, in meta.json; one without it is older."""
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
        lines = [*self.summary.get("notes", []), *(self.manifest.get("workload") or {}).get("notes", [])]
        dropped = self.summary.get("requests", {}).get("dropped_from_trace") or {}
        if dropped:
            lines.append("left out of the trace: " + ", ".join(f"{n:,} rows ({why})" for why, n in dropped.items()))
        if clipped := self.summary.get("requests", {}).get("clipped"):
            lines.append(f"{clipped:,} requests, prompt and output, were longer than the model takes and scaled down")
        judged = self.summary.get("saturation", {})
        too_few = "requests_needed" in (judged.get("evidence") or {})
        if too_few or judged.get("verdict") in ("near saturation", "overloaded"):
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
        """The files of a run directory that hold no tables. SaveError if they cannot be written."""
        meta = {"format": FORMAT, "name": self.name} | self.manifest
        meta.pop("config", None)
        with saving(folder):
            (folder / CONFIG).write_text(config_text(self.manifest), encoding="utf-8")
            (folder / META).write_text(to_json(meta), encoding="utf-8")
            (folder / SUMMARY).write_text(to_json(self.summary), encoding="utf-8")


def config_text(manifest: Mapping[str, Any]) -> str:
    """The config of a manifest as YAML."""
    config = manifest.get("config", {})
    if isinstance(config, str):
        return config
    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def beyond_calibration(results: Sequence[Headline]) -> str:
    """One sentence on how far these runs left what their calibrations were measured on; empty if they did not."""
    summaries = [result.summary for result in results]
    return beyond([r for s in summaries for r in s.get("calibrations", [s.get("calibration", {})])])


def beyond(reports: Sequence[Mapping[str, Any]]) -> str:
    """The same by the reports on calibrations in summaries."""
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
