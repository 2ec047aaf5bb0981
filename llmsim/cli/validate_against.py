"""`llmsim validate --against FILE`: a simulation against a run that was measured on a server elsewhere."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmsim.cli.console import say, warn
from llmsim.cli.options import RunOptions
from llmsim.cli.run_spec import run_specs
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.validation.against import Against
    from llmsim.validation.measured_run import MeasuredRun
    from llmsim.validation.tolerance import Limit

LIVE_ONLY = (
    "trace", "format", "map", "on_long", "loads", "rates", "minutes", "num_requests", "clock", "at_found_speed",
    "model", "device",
)  # fmt: skip
"""Options of the live comparison, where the workload and the device are this command's to choose."""
AGAINST_ONLY = ("origin", "on_bad")


def check_options(context: typer.Context, against: bool) -> None:
    """Raise BadParameter for an option that was given and means nothing here."""
    for name in LIVE_ONLY if against else AGAINST_ONLY:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter(
                f"{option} does not go with --against: the requests are those of the file, the device is the server's"
                if against
                else f"{option} needs --against FILE"
            )


def validate_against(
    mapping: dict[str, Any],
    run: RunOptions,
    file: Path,
    *,
    origin: str,
    on_bad: str,
    limits: tuple[Limit, ...],
    out: Path | None,
) -> list[str]:
    """Compare every policy of the run with the measured run, print, and keep; what is beyond `limits`, one line each.

    `mapping` is the run's description. Raises ConfigError, TraceError and what `simulate` raises.
    """
    from llmsim.validation.against import compare_against
    from llmsim.validation.against_text import against_text
    from llmsim.validation.measured_run import measured_run
    from llmsim.validation.tolerance import violations

    _check_request(run.overrides or [], limits)
    measured = measured_run(file, origin, on_bad)
    comparisons: list[Against] = []
    try:
        for spec in run_specs(run, _of_the_file(mapping, measured)):
            found = compare_against(spec, measured)
            comparisons.append(found)
            if not run.as_json:
                print(against_text(found) + "\n")
            for line in found.simulated.warnings():
                warn(f"warning: {found.label}: {line}")
    except BaseException:
        if comparisons:
            with suppress(Exception):  # the first error is the one to tell
                _finish(comparisons, out, run.as_json)
        raise
    _finish(comparisons, out, run.as_json)
    many = len(comparisons) > 1
    return [f"{f.label}: {line}" if many else line for f in comparisons for line in violations(f.errors, limits)]


def _check_request(overrides: list[str], limits: tuple[Limit, ...]) -> None:
    for line in overrides:
        if line.startswith("workload."):
            raise ConfigError(f"--set {line}: with --against the workload is the file's requests; leave it out")
    for limit in limits:
        if limit.metric == "itl":
            raise ConfigError(
                f"tolerance itl.{limit.statistic} cannot be judged: the file of a measured run has no times of single "
                "tokens; use tpot"
            )


def _of_the_file(mapping: dict[str, Any], measured: MeasuredRun) -> dict[str, Any]:
    """The run's description with the file as its workload, so that `llmsim simulate` can run it again."""
    from llmsim.validation.measured_run import ORIGINS

    if "workload" in mapping:
        warn(f"the workload of the run's description is not used: the requests are those of {measured.file.source}")
    columns = {
        "arrival_s": ORIGINS[measured.origin],
        "prompt_tokens": "input_tokens",
        "output_tokens": "output_tokens",
    }
    on_bad = "drop" if measured.file.dropped else "error"
    workload = {"trace": measured.file.source, "columns": columns, "on_bad": on_bad}
    return {"name": measured.name} | mapping | {"workload": workload}


def _finish(comparisons: list[Against], out: Path | None, as_json: bool) -> None:
    """The policies side by side, or JSON; and what is to be kept."""
    from llmsim.reports.validation_report import write_against_report
    from llmsim.runs.folders import write_whole
    from llmsim.validation.against_text import side_by_side

    text = json.dumps([found.as_dict() for found in comparisons], indent=2, allow_nan=False)
    if as_json:
        print(text)
    elif len(comparisons) > 1:
        print(side_by_side(comparisons))
    if out is None:
        return
    kept = [comparisons[0].live.save(out), *(found.simulated.save(out) for found in comparisons)]
    page = write_against_report(comparisons, out / "validation.html")
    write_whole(out / "validation.json", text + "\n")
    for path in (*kept, page):
        say(f"saved {path}", as_json)
