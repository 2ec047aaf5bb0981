"""The command line: parse, call, print, exit code. Results go to stdout, progress and warnings to stderr.

Exit codes: 0 done, 1 an error (one line on stderr), 2 a wrong command line, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import os
import sys

import typer

from llmsim.cli import bench, calibrations, capacity, export, profile, report, simulate, sweep, trace, validate
from llmsim.cli.groups import refuse_repeats
from llmsim.cli.stopping import Terminated, terminable
from llmsim.errors import LlmsimError

app = typer.Typer(
    name="llmsim",
    help="Simulate LLM serving: which scheduler, how many GPUs, what latency, before you deploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(name="simulate")(simulate.simulate)
app.command(name="capacity")(capacity.capacity)
app.command(name="sweep")(sweep.sweep)
app.command(name="bench")(bench.bench)
app.command(name="report")(report.report)
app.command(name="export")(export.export)
app.command(name="profile")(profile.profile)
app.command(name="validate")(validate.validate)
app.add_typer(calibrations.app, name="calibrations")
app.add_typer(trace.app, name="trace")
refuse_repeats(app)


def main() -> None:
    """Entry point of the `llmsim` command."""
    try:
        with terminable():
            app()
    except LlmsimError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Terminated:
        print("terminated", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader (head, less) went away: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
