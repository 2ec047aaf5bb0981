"""Workloads for compare_summaries.py: shipped twins, synthetic lengths and arrivals, small files in every format."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SOURCES = (
    "synthetic", "azure", "azure-conv", "llmsim", "columns", "sharegpt4", "sarathi", "synthetic", "mooncake",
    "azure-code", "burstgpt", "lines", "parquet",
)  # fmt: skip
"""Where the requests of a workload come from: nowhere, a shipped twin, or a small file in that format."""
TWINS = ("azure-conv", "sharegpt4", "azure-code")
WITH_MODELS = ("llmsim", "lines", "columns")
"""Formats that can say in every row which model is asked for."""
EPOCH_S = 1_700_000_000


class Row(NamedTuple):
    """A request of a trace file: arrival in ns from the first instant of the file, lengths in tokens."""

    arrival_ns: int
    prompt: int
    output: int


def draw_workload(
    rng: Random, source: str, count: int, rate: float, models: Sequence[str], path: Path, *, clip: bool
) -> dict[str, Any]:
    """The key workload of a run of `count` requests, about `rate` a second; a file it needs is written to `path`.

    `models`, if there are several, must be asked for. `clip`: no request may be longer than the models take.
    """
    if source == "synthetic":
        workload: dict[str, Any] = {"lengths": _synthetic(rng), "num_requests": count}
    elif source in TWINS:
        workload = {"trace": source, "num_requests": count, "lengths": {"kind": rng.choice(("trace", "empirical"))}}
    else:
        workload = _file(rng, source, count, rate, models, path)
        if rng.random() < 0.5:
            workload["lengths"] = {"kind": rng.choice(("resampled", "empirical", "trace"))}
            workload["num_requests"] = int(0.8 * count)  # not more than the rows that can be used
        if rng.random() < 0.2 and workload.get("lengths", {}).get("kind", "trace") == "trace":
            workload["shuffle"] = True
    workload["on_long"] = "clip" if clip or rng.random() < 0.7 else "drop"
    untimed = workload.pop("untimed", False) or source in ("synthetic", "sharegpt4")
    workload |= _arrivals(rng, count, rate, from_trace=not untimed)
    if len(models) > 1 and source not in WITH_MODELS:
        workload["classes"] = _classes(rng, models)
    elif len(models) == 1 and rng.random() < 0.45:
        workload["classes"] = _classes(rng, (None, None, None)[: rng.randint(1, 3)])
    return workload


def _synthetic(rng: Random) -> dict[str, Any]:
    """Prompt and output lengths from distributions, in tokens."""
    prompts = (
        {"kind": "fixed", "value": rng.randint(50, 600)},
        {"kind": "uniform", "low": 1, "high": rng.randint(100, 900)},
        {"kind": "normal", "mean": 300.0, "std": 150.0, "low": 10, "high": 900},
        {"kind": "lognormal", "mean": 350, "std": 500, "high": 1500},
        {"kind": "zipf", "exponent": 1.1, "high": 900},
    )
    outputs = (
        {"kind": "fixed", "value": rng.choice((1, 2, 64))},
        {"kind": "uniform", "low": 1, "high": rng.randint(10, 200)},
        {"kind": "lognormal", "mean": 80, "std": 90, "high": 400},
        {"kind": "zipf", "exponent": 0.8, "low": 3, "high": 250},
    )
    return {"kind": "synthetic", "prompt": rng.choice(prompts), "output": rng.choice(outputs)}


def _arrivals(rng: Random, count: int, rate: float, *, from_trace: bool) -> dict[str, Any]:
    """The keys arrivals and time_scale; the trace's own times in half of the cases where it has some."""
    if from_trace and rng.random() < 0.5:
        return rng.choice(({}, {"time_scale": 0.5}, {"arrivals": {"kind": "trace", "rate": rate}}))
    span_s = count / rate
    kinds: tuple[dict[str, Any], ...] = (
        {"kind": "poisson", "rate": rate},
        {"kind": "poisson", "rate": rate, "gap_cap": 3},
        {"kind": "gamma", "rate": rate, "burstiness": rng.choice((0.3, 2.0))},
        {"kind": "constant", "rate": rate},
        {"kind": "bursts", "rate": rate, "burst_size": rng.choice((4, 15))},
        {"kind": "on_off", "rate": rate, "on_s": round(span_s / 8, 3), "off_s": round(span_s / 10, 3)},
        {"kind": "ramp", "ramp": [[0, rate / 2], [round(span_s / 2, 3), rate * 2], [round(span_s, 3), rate]]},
        {"kind": "all_at_once"},
        {"kind": "closed_loop", "max_concurrency": rng.choice((1, 4, 16, 48))},
        {"kind": "closed_loop", "max_concurrency": rng.choice((8, 24))},
    )
    return {"arrivals": rng.choice(kinds)}


def _classes(rng: Random, models: Sequence[str | None]) -> list[dict[str, Any]]:
    """A class a model (None: of any), with targets, a tier and priority in part of them; shares sum to 1."""
    names = ("interactive", "batch", "agents", "free")
    shares = {1: (1.0,), 2: (0.7, 0.3), 3: (0.5, 0.3, 0.2)}[len(models)]
    classes = []
    for at, model in enumerate(models):
        one: dict[str, Any] = {"name": names[at], "share": shares[at]}
        one |= {k: v for k, v in (("ttft_s", 0.5), ("tbt_s", 0.05), ("ttlt_s", 10.0)) if rng.random() < 0.5}
        if rng.random() < 0.5:
            one |= {"tier": at, "priority": at == 0}
        classes.append(one if model is None else one | {"model": model})
    return classes


def _file(rng: Random, source: str, count: int, rate: float, models: Sequence[str], path: Path) -> dict[str, Any]:
    """Write a trace file beside `path`, whose name gets the ending of the format, and name it as a workload does."""
    now, rows = 0, []
    for _ in range(count):
        now += int(rng.expovariate(rate) * 1e9)
        prompt, output = rng.lognormvariate(5.5, 1.0), rng.lognormvariate(4.0, 0.9)
        rows.append(Row(now, min(max(int(prompt), 1), 3000), min(max(int(output), 1), 500)))
    asked = [rng.choice(models) for _ in rows] if len(models) > 1 else None
    if source == "parquet":
        import pandas as pd

        target = path.with_suffix(".parquet")
        names = {"arrival_ns": "arrival_ns", "prompt": "prompt_tokens", "output": "output_tokens"}
        pd.DataFrame(rows, columns=Row._fields).rename(columns=names).to_parquet(target, index=False)
        return {"trace": target.name}
    table, more = _WRITERS[source](rng, rows, asked)
    if source not in ("mooncake", "lines") and rng.random() < 0.3:
        table.insert(rng.randint(1, len(table)), ["0" for _ in table[0]])
        more["on_bad"] = "drop"
    text = _json_lines(table) if source in ("mooncake", "lines") else _csv(rng, table)
    target = path.with_suffix(".jsonl" if source in ("mooncake", "lines") else ".csv")
    data = text.encode()
    if rng.random() < 0.4:
        target, data = target.with_name(f"{target.name}.gz"), gzip.compress(data, mtime=0)
    target.write_bytes(data)
    return {"trace": target.name, **more}


Table = list[list[Any]]
"""Header, then rows."""
Written = tuple[Table, dict[str, Any]]
"""What a file holds, and the keys of the workload that say how to read it."""


def _azure(rng: Random, rows: list[Row], asked: list[str] | None) -> Written:
    begin = datetime(2023, 11, 16, 18, 15, 46, tzinfo=UTC)
    table: Table = [["TIMESTAMP", "ContextTokens", "GeneratedTokens"]]
    for row in rows:
        second, rest = divmod(row.arrival_ns, 10**9)
        stamp = (begin + timedelta(seconds=second)).strftime("%Y-%m-%d %H:%M:%S")
        table.append([f"{stamp}.{rest // 100:07d}", row.prompt, row.output])
    return table, {}


def _sarathi(rng: Random, rows: list[Row], asked: list[str] | None) -> Written:
    lengths = [[row.prompt, row.output] for row in rows]
    names = ["num_prefill_tokens", "num_decode_tokens"]
    if rng.random() < 0.3:
        return [names, *lengths], {"untimed": True}
    times = [f"{row.arrival_ns / 1e9:.6f}" for row in rows]
    return [["arrived_at", *names], *([at, *row] for at, row in zip(times, lengths, strict=True))], {"format": "vidur"}


def _mooncake(rng: Random, rows: list[Row], asked: list[str] | None) -> Written:
    table: Table = [["timestamp", "input_length", "output_length", "hash_ids"]]
    table += [[row.arrival_ns // 10**6, row.prompt, row.output, [row.prompt // 7, 46]] for row in rows]
    return table, {}


def _burstgpt(rng: Random, rows: list[Row], asked: list[str] | None) -> Written:
    table: Table = [["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"]]
    for row in rows:
        output = 0 if rng.random() < 0.05 else row.output
        table.append([row.arrival_ns // 10**9, "ChatGPT", row.prompt, output, row.prompt + output, "API log"])
    return table, {}


def _llmsim(rng: Random, rows: list[Row], asked: list[str] | None) -> Written:
    per_ns = {"arrival_ns": 1, "arrival_us": 10**3, "arrival_ms": 10**6}
    unit = rng.choice(list(per_ns))
    table: Table = [[unit, "prompt_tokens", "output_tokens", "slo_class", "tbt_s", "ttft_s", "tier", "priority"]]
    for row in rows:
        kind = rng.choice((["chat", 0.05, 0.8, 0, "true"], ["batch", 0.5, 9.0, 2, "false"]))
        table.append([row.arrival_ns // per_ns[unit], row.prompt, row.output, *kind])
    return _with_models(table, "model", asked), {"time_unit": "us"} if unit == "arrival_us" else {}


def _columns(rng: Random, rows: list[Row], asked: list[str] | None) -> Written:
    columns = {"arrival_s": "when", "prompt_tokens": "in", "output_tokens": "out"}
    table: Table = [["when", "who", "in", "out"]]
    table += [[f"{EPOCH_S + row.arrival_ns / 1e9:.3f}", "me", row.prompt, row.output] for row in rows]
    return _with_models(table, "llm", asked), {"columns": columns | ({"model": "llm"} if asked else {})}


_WRITERS = {
    "azure": _azure, "sarathi": _sarathi, "mooncake": _mooncake, "burstgpt": _burstgpt, "llmsim": _llmsim,
    "lines": _llmsim, "columns": _columns,
}  # fmt: skip


def _with_models(table: Table, column: str, asked: list[str] | None) -> Table:
    if asked is None:
        return table
    return [[*row, cell] for row, cell in zip(table, [column, *asked], strict=True)]


def _csv(rng: Random, table: Table) -> str:
    """One of three in the style of spreadsheets: byte order mark, all cells quoted, carriage returns."""
    text = io.StringIO()
    if rng.random() < 0.3:
        text.write("\ufeff")
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(table)
    else:
        csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def _json_lines(table: Table) -> str:
    words = {"true": True, "false": False}
    cells = ([words.get(cell, cell) if isinstance(cell, str) else cell for cell in row] for row in table[1:])
    rows = (dict(zip(table[0], row, strict=True)) for row in cells)
    return "".join(f"{json.dumps(row)}\n" for row in rows)
