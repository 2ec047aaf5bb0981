"""The text format of a statistical twin: JSON that a person can review, long lists wrapped."""

from __future__ import annotations

import json
import textwrap
from typing import Any

KIND = "llmsim-trace-twin"
VERSION = 1
_WIDTH = 118


def is_twin(data: bytes) -> bool:
    """Whether a decompressed file is a twin (its first key says so)."""
    return data[:1] == b"{" and KIND.encode() in data[:100]


def dump(twin: dict[str, Any]) -> str:
    """JSON text of a twin: one key a line, lists of numbers wrapped, so that a diff shows what moved."""
    return _render(twin, 0) + "\n"


def _render(value: Any, depth: int) -> str:
    """JSON of a value at a nesting depth of two spaces each."""
    pad, inner = "  " * depth, "  " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {_render(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{pad}}}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        rows = [inner + json.dumps(row, separators=(",", ":")) for row in value]
        return "[\n" + ",\n".join(rows) + f"\n{pad}]"
    text = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list) or len(text) <= _WIDTH - len(inner):
        return text
    body = textwrap.fill(text[1:-1], _WIDTH, initial_indent=inner, subsequent_indent=inner)
    return f"[\n{body}\n{pad}]"
