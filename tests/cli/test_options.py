"""Options that commands share are written once: the same names, help and defaults wherever they appear."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from llmsim import cli
from llmsim.cli.groups import Sets, expand_groups
from llmsim.cli.options import RunOptions, SimulationOptions
from llmsim.cli.run_spec import run_mapping

GROUPS = {
    "simulate": (RunOptions, SimulationOptions),
    "capacity": (RunOptions, SimulationOptions),
    "bench": (RunOptions,),
    "validate": (RunOptions, SimulationOptions),
}
ABSENT = {
    "simulate": set(),
    "capacity": {"max_concurrency", "out"},
    "bench": set(),
    "validate": {"rate", "max_concurrency", "warmup", "slo", "replicas", "horizon"},
}
OWN = {"simulate": set(), "capacity": {"slo"}, "bench": set(), "validate": {"on_bad", "num_requests", "out"}}
"""Options that mean something narrower in a command, which then has its own of that name."""


@expand_groups()
def everything(run: RunOptions, simulation: SimulationOptions) -> None:
    """Every shared option, as it is defined."""


@dataclass(frozen=True, kw_only=True)
class LongerOptions(RunOptions):
    engine: Annotated[str | None, typer.Option(help="Which engine."), Sets("engine.name", str.lower)] = None


def declared(command: Any) -> dict[str, tuple]:
    """What typer made of the options of a command."""
    return {
        option.name: (option.opts, option.secondary_opts, getattr(option, "help", None), option.default,
                      option.required, option.multiple, option.metavar)
        for option in command.params
    }  # fmt: skip


def app_of(function: Any) -> typer.Typer:
    app = typer.Typer()
    app.command()(function)
    return app


@pytest.mark.parametrize("name", GROUPS)
def test_a_shared_option_is_the_same_in_every_command(name):
    shared = declared(get_command(app_of(everything)))
    there = declared(get_command(cli.app).commands[name])
    names = {field.name for group in GROUPS[name] for field in fields(group)}
    assert names - set(there) == ABSENT[name]
    assert {option for option in names & set(there) if there[option] != shared[option]} == OWN[name]


def test_a_field_more_is_an_option_more_and_a_key_more_of_the_run():
    found = []

    @expand_groups(without=("trace",))
    def serve(options: LongerOptions, *, seed: Annotated[int, typer.Option(help="Own.")] = 7) -> None:
        found.append((run_mapping(options), options.seed, options.trace, seed))

    app = app_of(serve)
    assert CliRunner().invoke(app, ["--engine", "VLLM", "--num-prompts", "3"]).exit_code == 0
    assert found == [({"engine": {"name": "vllm"}, "workload": {"num_requests": 3}}, None, None, 7)]
    refused = CliRunner().invoke(app, ["--trace", "sharegpt4"])
    assert (refused.exit_code, "No such option" in refused.output) == (2, True)


def test_options_that_were_not_given_say_nothing_and_the_others_lie_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\nwarmup_s: 2\nscheduler: sarathi\n")
    assert run_mapping(RunOptions(), SimulationOptions()) == {}
    run = RunOptions(config=file, seed=5, map=["tier=class"], slo=["ttft:200 tpot:50", "e2el:9"], rate=2.0)
    simulation = SimulationOptions(scheduler=["vllm_v1", "slai"], replicas=3)
    assert run_mapping(run, simulation) == {
        "seed": 5,
        "warmup_s": 2,
        "workload": {"columns": {"tier": "class"}, "arrivals": {"kind": "poisson", "rate": 2.0}},
        "slo": ["ttft:200", "tpot:50", "e2el:9"],
        "schedulers": ["vllm_v1", "slai"],
        "cluster": {"replicas": 3},
    }


def test_no_command_imports_another():
    commands = {"calibrations", "export", "profile", "report", "sweep", "trace", *GROUPS}
    for path in Path(cli.__file__).parent.glob("*.py"):
        if path.stem == "__init__":
            continue
        modules = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not {f"llmsim.cli.{name}" for name in commands} & set(modules), path.name
