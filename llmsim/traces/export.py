"""Write workloads: Mooncake JSON lines for other tools, our own CSV and Parquet.

| ending | holds |
|---|---|
| .csv | the schema but hash_ids |
| .jsonl | Mooncake: timestamp (ms), input_length, output_length, hash_ids (those of the trace, if it has any) |
| .parquet | the whole schema |

`.csv.gz` and `.jsonl.gz` are compressed. Files are written whole or not at all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError, TraceError
from llmsim.traces import files
from llmsim.traces.hash_ids import blocks_of, lists_of_ids
from llmsim.traces.schema import COLUMNS
from llmsim.units import MILLISECOND

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.traces.workload import Workload


def write_trace(requests: pd.DataFrame, path: str | Path) -> Path:
    """Write a trace table in the format its name ends in.

    ConfigError for another ending, TraceError on failure.
    """
    name = Path(path).name.removesuffix(".gz")
    if name.endswith(".csv"):
        data = to_csv(requests)
    elif name.endswith((".jsonl", ".json")):
        data = to_mooncake(requests)
    elif name == Path(path).name and name.endswith(".parquet"):
        data = to_parquet(requests)
    else:
        raise ConfigError(
            f"{path}: the name must end in .csv, .jsonl (or these with .gz) or .parquet; rename the output"
        )
    return files.write_bytes(path, data)


def to_csv(requests: pd.DataFrame) -> bytes:
    """Our own CSV: the schema's columns but hash_ids, lines ended by a newline."""
    columns = [c for c in COLUMNS if c in requests.columns and c != "hash_ids"]
    return requests.to_csv(columns=columns, index=False, lineterminator="\n").encode()


def to_parquet(requests: pd.DataFrame) -> bytes:
    """Parquet of the whole schema."""
    buffer = io.BytesIO()
    requests[[c for c in COLUMNS if c in requests.columns]].to_parquet(buffer, index=False)
    return buffer.getvalue()


def to_mooncake(requests: pd.DataFrame) -> bytes:
    """Mooncake JSON lines; TraceError without arrivals.

    hash_ids are those of the table. A row without gets its own: ceil(input / 512), and none used twice (no shared
    prefixes): vLLM builds prompts from them, so a row without them would be an empty prompt. Times off the millisecond
    keep their decimals.
    """
    if "arrival_ns" not in requests.columns:
        raise TraceError(
            "Mooncake rows need arrival times, but the trace holds lengths only; give it some with `llmsim "
            "trace synth FILE --rate R --out OUT`"
        )
    columns = [requests[name].tolist() for name in ("arrival_ns", "prompt_tokens", "output_tokens")]
    rows = zip(*columns, _hash_ids(requests), strict=True)
    lines = [
        f'{{"timestamp": {_milliseconds(arrival)}, "input_length": {prompt}, "output_length": {output}, '
        f'"hash_ids": {ids}}}\n'
        for arrival, prompt, output, ids in rows
    ]
    return "".join(lines).encode()


def _hash_ids(requests: pd.DataFrame) -> Iterator[str]:
    """Prefix blocks of every row, as JSON."""
    blocks = [blocks_of(prompt) for prompt in requests["prompt_tokens"].tolist()]
    lists = lists_of_ids(requests)
    free = 1 + max((int(i) for ids in lists for i in ids or () if not isinstance(i, str)), default=-1)
    for count, ids in zip(blocks, lists, strict=True):
        if ids:
            yield json.dumps([i if isinstance(i, str) else int(i) for i in ids])
        else:
            yield str(list(range(free, free + count)))
            free += count


def _milliseconds(ns: int) -> str:
    """Decimal text of ns in ms, exact, an int where it is whole."""
    whole, rest = divmod(ns, MILLISECOND)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


def workload_table(workload: Workload) -> pd.DataFrame:
    """Trace table of a workload, with SLO columns where it has classes."""
    import numpy as np
    import pandas as pd

    table = pd.DataFrame(
        {
            "arrival_ns": workload.arrival_ns,
            "prompt_tokens": workload.prompt_tokens,
            "output_tokens": workload.output_tokens,
        }
    )
    classes = workload.slo_classes
    index = workload.slo_index
    if any(c.model for c in classes):
        table["model"] = np.array([c.model for c in classes], dtype=object)[index]
    if all(c.name == "default" for c in classes):
        return table
    table["slo_class"] = np.array([c.name for c in classes], dtype=object)[index]
    for name in ("tbt_s", "ttft_s", "ttlt_s"):
        table[name] = np.array([getattr(c, name) for c in classes], dtype=np.float64)[index]
    table["tier"] = pd.array([c.tier for c in classes], dtype="Int64")[index]
    table["priority"] = np.array([c.priority for c in classes], dtype=bool)[index]
    return table
