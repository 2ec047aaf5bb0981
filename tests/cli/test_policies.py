"""`llmsim schedulers`, `llmsim routers`, --version and -h."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

import llmsim
from llmsim.cli import app
from llmsim.spec import registry
from llmsim.spec.policies import SOURCES

ROOT = Path(__file__).parents[2]


def ran(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_every_policy_is_listed_with_its_options_and_its_source(kind):
    assert set(SOURCES[kind]) == set(registry.names(kind))
    listed = json.loads(ran(f"{kind}s", "--json"))
    assert [one["name"] for one in listed] == registry.names(kind)
    text = ran(f"{kind}s")
    for one in listed:
        assert one["summary"]
        assert one["source"]
        assert f"\n{one['name']}  {one['summary']}" in f"\n{text}"
        given = {option["name"]: option["default"] for option in one["options"]}
        assert registry.build(kind, {"name": one["name"], **given}) == registry.build(kind, one["name"])


def test_some_policies_may_be_asked_for(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom llmsim import ContinuousBatching\n\n"
        "@dataclass\nclass Own(ContinuousBatching):\n    '''Mine.\n\n    More.'''\n    taste: float | None = None\n"
    )
    (own,) = json.loads(ran("schedulers", f"{path}:Own", "--json"))
    assert own["summary"] == "Mine."
    assert own["source"] is None
    assert own["options"][-1] == {"name": "taste", "type": "float | None", "default": None, "required": False}
    assert "taste: float | None = none" in ran("schedulers", f"{path}:Own")
    assert "chunk_size: int = 512" in ran("schedulers", "sarathi")
    assert "orca" not in ran("schedulers", "sarathi")


def test_the_version_is_one():
    assert ran("--version") == f"llmsim {llmsim.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", llmsim.__version__)


def commands(command, path=()):
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.mark.parametrize("path", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_h_is_help_everywhere(path):
    plain = click.unstyle(ran(*path, "-h"))
    assert "Usage:" in plain
    assert plain == click.unstyle(ran(*path, "--help"))


def test_the_package_says_that_it_is_typed():
    assert (Path(llmsim.__file__).parent / "py.typed").exists()
