"""The command line: parse, call, print, exit code. Results go to stdout, progress and warnings to stderr.

Exit codes: 0 done, 1 an error (one line on stderr; a traceback if a policy of the user's own fails), 2 a wrong
command line, 129 hung up, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated

import typer

from llmsim.cli import (
    bench,
    calibrations,
    capacity,
    export,
    policies,
    profile,
    report,
    simulate,
    sweep,
    trace,
    validate,
)
from llmsim.cli.errors import explained
from llmsim.cli.groups import refuse_repeats
from llmsim.cli.output import written_out
from llmsim.cli.stopping import Terminated, terminable

app = typer.Typer(
    name="llmsim",
    help="Simulate LLM serving: which scheduler, how many GPUs, what latency, before you deploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="simulate")(simulate.simulate)
app.command(name="capacity")(capacity.capacity)
app.command(name="sweep")(sweep.sweep)
app.command(name="bench")(bench.bench)
app.command(name="report")(report.report)
app.command(name="export")(export.export)
app.command(name="profile")(profile.profile)
app.command(name="validate")(validate.validate)
app.command(name="schedulers")(policies.schedulers)
app.command(name="routers")(policies.routers)
app.command(name="engines")(policies.engines)
app.add_typer(calibrations.app, name="calibrations")
app.add_typer(trace.app, name="trace")
refuse_repeats(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"llmsim {import_module('llmsim').__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Simulate LLM serving: which scheduler, how many GPUs, what latency, before you deploy."""


def main() -> None:
    """Entry point of the `llmsim` command."""
    try:
        with terminable(), written_out():
            app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Terminated:
        with suppress(OSError):  # the terminal may be what went away
            print("terminated", file=sys.stderr)
        raise
    except Exception as error:
        text = explained(error)
        if text is None:
            raise
        print(text, file=sys.stderr)
        sys.exit(1)
