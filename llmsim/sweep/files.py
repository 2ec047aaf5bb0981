"""Both tables of a sweep as JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.sweep.run import Sweep


def json_text(sweep: Sweep) -> str:
    """An object: name, fields, seeds, `results` (a row a run), `means` (a row a point and figure); null for none."""
    return json.dumps(
        {
            "name": sweep.plan.name,
            "fields": sweep.plan.fields,
            "seeds": sweep.plan.seeds,
            "missing": sweep.missing,
            "failed": len(sweep.failed),
            "results": _rows(sweep.frame),
            "means": _rows(sweep.means),
        },
        indent=1,
        allow_nan=False,
        ensure_ascii=False,
    )


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): _plain(value) for name, value in row.items()} for row in table.astype(object).to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """JSON has no number for NaN (none) and infinity (text)."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
