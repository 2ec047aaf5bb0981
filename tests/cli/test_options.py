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
from llmsim.cli.run_spec import run_mapping, run_mappings, run_specs
from llmsim.errors import ConfigError

GROUPS = {
    "simulate": (RunOptions, SimulationOptions),
    "capacity": (RunOptions, SimulationOptions),
    "bench": (RunOptions,),
    "validate": (RunOptions, SimulationOptions),
}
ABSENT = {
    "simulate": set(),
    "capacity": {"max_concurrency", "out", "percentiles"},
    "bench": set(),
    "validate": {
        "rate", "max_concurrency", "warmup", "slo", "replicas", "horizon", "prompt_tokens", "output_tokens",
        "percentiles",
    },
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
    run = RunOptions(config=file, seed=5, map=["tier=class"], slo=["ttft:200 tpot:50", "e2el:9"], rate=[2.0])
    simulation = SimulationOptions(scheduler=["vllm_v1", "slai"], replicas=[3])
    assert run_mapping(run, simulation) == {
        "seed": 5,
        "warmup_s": 2,
        "workload": {"columns": {"tier": "class"}, "arrivals": {"kind": "poisson", "rate": 2.0}},
        "slo": ["ttft:200", "tpot:50", "e2el:9"],
        "schedulers": ["vllm_v1", "slai"],
        "cluster": {"replicas": 3},
    }


def test_options_given_several_times_make_a_grid_of_runs():
    run = RunOptions(prompt_tokens="1500", output_tokens="300", rate=[2.0, 4.0], num_requests=7)
    simulation = SimulationOptions(
        scheduler=["vllm_v1", "sarathi"], calibration=["h100/llama-3.1-8b", "a100/llama-3.1-8b"], replicas=[1, 2]
    )
    specs = run_specs(run, *run_mappings(run, simulation))
    found = [(s.calibration[:4], s.cluster.replicas, s.workload.arrivals.rate, s.scheduler) for s in specs]
    assert len(set(found)) == len(found) == 16
    assert found[:3] == [("h100", 1, 2.0, "vllm_v1"), ("h100", 1, 2.0, "sarathi"), ("h100", 1, 4.0, "vllm_v1")]
    with pytest.raises(ConfigError, match=r"--rate is given 2 times \(2.0, 4.0\), but this command takes one"):
        run_mapping(run)


def test_more_runs_than_a_table_holds_are_a_sweep():
    run = RunOptions(trace=["azure-conv"], rate=[float(rate) for rate in range(1, 34)])
    two = SimulationOptions(scheduler=["vllm_v1", "sarathi"])
    with pytest.raises(ConfigError, match=r"66 runs \(33 --rate x 2 --scheduler\) .* at most 64; `llmsim sweep`"):
        run_mappings(run, two)
    assert len(run_mappings(run)) == 33


def test_a_value_compared_with_itself_is_refused():
    with pytest.raises(ConfigError, match=r"--rate 2.0 is given twice"):
        run_mappings(RunOptions(rate=[2.0, 2.0]))


def every_command(command: Any, path: tuple[str, ...] = ()) -> Any:
    """(path, command) of each command and group."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, (*path, name))


def test_no_option_of_any_command_is_silently_the_last_one():
    tried = 0
    for path, command in every_command(get_command(cli.app)):
        for option in command.params:
            if not option.opts[0].startswith("--") or option.is_eager or option.multiple:
                continue
            once = [option.opts[0]] if option.is_flag else [option.opts[0], "1"]
            given = CliRunner().invoke(cli.app, [*path, *once, *once])
            assert given.exit_code == 2, (path, option.name)
            assert f"{option.opts[0]} is given 2 times" in " ".join(given.output.split())
            tried += 1
    assert tried > 100


def test_lists_of_pairs_refuse_a_key_given_twice():
    for field, lines in (("overrides", ["seed=1", "seed=2"]), ("map", ["tier=a", "tier=b"])):
        with pytest.raises(ConfigError, match="twice"):
            run_specs(RunOptions(**{field: lines}), *run_mappings(RunOptions(**{field: lines})))


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, ["--trace NAME", "--prompt-tokens", "--output-tokens", "--rate or --max-concurrency", "--calibration"]),
        ({"rate": [1.0]}, ["--trace NAME", "--prompt-tokens 1500 --output-tokens 300", "--calibration"]),
        ({"prompt_tokens": "9"}, ["--output-tokens", "--rate or --max-concurrency", "--calibration"]),
        ({"output_tokens": "9", "max_concurrency": 4}, ["--prompt-tokens", "--calibration"]),
        ({"prompt_tokens": "9", "output_tokens": "9"}, ["--rate or --max-concurrency", "--calibration"]),
    ],
)
def test_all_options_that_are_missing_are_named_at_once(options, missing):
    run = RunOptions(**options)
    with pytest.raises(ConfigError) as refused:
        run_specs(run, *run_mappings(run))
    assert all(option in str(refused.value) for option in missing)
    assert options == {} or "--rate" not in str(refused.value) or "rate" not in options


def test_drawn_lengths_need_no_number_of_requests():
    run = RunOptions(prompt_tokens="1500", output_tokens="uniform:10-20", max_concurrency=4)
    (spec,) = run_specs(run, *run_mappings(run, SimulationOptions(calibration=["h100/llama-3.1-8b"])))
    assert spec.workload.num_requests == 1000
    assert spec.workload.lengths.drawn["prompt"].value == 1500


def test_no_command_imports_another():
    commands = {"calibrations", "export", "profile", "report", "sweep", "trace", *GROUPS}
    for path in Path(cli.__file__).parent.glob("*.py"):
        if path.stem == "__init__":
            continue
        modules = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not {f"llmsim.cli.{name}" for name in commands} & set(modules), path.name
