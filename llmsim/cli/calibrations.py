"""`llmsim calibrations`: what is shipped, or one calibration with the source of every number."""

from __future__ import annotations

from typing import Annotated

import typer


def calibrations(
    name: Annotated[str | None, typer.Argument(help="Show this one whole: device/model, or a file.")] = None,
) -> None:
    """List the calibrations, or show one: coefficients, units, measured range, errors, sources."""
    from llmsim.costs.calibration import list_calibrations, load_calibration

    if name is not None:
        print(load_calibration(name).to_json(), end="")
        return
    for known in list_calibrations():
        calibration = load_calibration(known)
        kv = calibration.kv
        print(f"{known:30} {calibration.batch_time.form:10} {kv.num_blocks} KV blocks of {kv.block_size} tokens")
