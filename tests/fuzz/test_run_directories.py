"""Damaged run directories and point files: one line with the file and what to do, or the very same result as before.

LLMSIM_FUZZ=500 tries that many instead of a few; a failure names its seed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmsim import sweep_grid
from llmsim.errors import ConfigError, LlmsimError
from llmsim.exports import export_runs
from llmsim.reports.run_report import write_report
from llmsim.runs.results import Result
from llmsim.runs.sealed import SUMS
from llmsim.runs.simulation import simulate
from tests.client.test_bench import measure
from tests.command import typed
from tests.sweep.grids import grid

TRIES = int(os.environ.get("LLMSIM_FUZZ", "40"))
SPEC = {
    "calibration": "h100/llama-3.1-8b",
    "workload": {"trace": "sharegpt4", "num_requests": 30, "arrivals": {"kind": "poisson", "rate": 4.0}},
}

Mutation = Callable[[Path, random.Random], None]


def cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def garble(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at : at + 64] = draw.randbytes(64)
    path.write_bytes(bytes(data))


def restructure(path: Path, draw: random.Random) -> None:
    """A column less, of another name or type; a key less, or of another type."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        at = draw.randrange(table.num_columns)
        name = table.column_names[at]
        how = draw.choice(["drop", "rename", "text", "float", "shift", "no rows"])
        if how == "drop":
            table = table.drop_columns([name])
        elif how == "rename":
            table = table.rename_columns([f"{column}_" if column == name else column for column in table.column_names])
        elif how == "no rows":
            table = table.slice(0, 0)
        elif how == "shift" and pa.types.is_integer(table.schema.field(at).type):
            table = table.set_column(at, name, pa.array([value.as_py() + 10**9 for value in table[name]]))
        else:
            kind = pa.string() if how == "text" else pa.float64()
            table = table.set_column(at, name, pa.nulls(len(table), kind))
        pq.write_table(table, path)
    elif path.suffix == ".json":
        held = json.loads(path.read_text())
        key = draw.choice(sorted(held))
        held[key] = draw.choice([None, "text", -1, [], {"a": 1}, 1e308, True])
        path.write_text(json.dumps(held))
    else:
        path.write_text(draw.choice(["a: [", "\x00", "- 1\n", "a: &a [*a]\n"]))


MUTATIONS: list[Mutation] = [cut, empty, flip, garble, restructure]


@pytest.fixture(scope="module", params=["simulated", "measured"])
def kept(request, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    return (simulate(SPEC) if request.param == "simulated" else measure()).save(out)


def use(folder: Path, page: Path) -> None:
    """All that reads a run directory."""
    result = Result.load(folder)
    write_report([result], page)
    for form in ("mooncake", "vllm-bench"):
        export_runs([folder], form, page.with_name(form))


def refusal(call: Callable[[], object], what: str) -> str:
    """What an LlmsimError says, in one line; nothing if there is none. Any other error is a failure."""
    try:
        call()
    except LlmsimError as error:
        said = str(error)
    except Exception as error:
        pytest.fail(f"{what}: {type(error).__name__}: {error}")
    else:
        return ""
    assert "\n" not in said, what
    return said


def tries(kept: Path, tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    files = sorted(path.name for path in kept.iterdir() if path.name not in ("requests.csv", "vllm_bench.json"))
    for seed in range(TRIES):
        draw = random.Random(seed)
        folder = tmp_path / str(seed) / "run"
        shutil.copytree(kept, folder)
        path = folder / draw.choice(files)
        mutation = draw.choice(MUTATIONS)
        before = path.read_bytes()
        mutation(path, draw)
        if path.read_bytes() != before:
            yield f"seed {seed}: {mutation.__name__} {path.name}", path, folder
        shutil.rmtree(folder.parent)


def test_what_is_damaged_is_refused_by_the_name_of_its_file(kept, tmp_path):
    use(kept, tmp_path / "page.html")
    for what, path, folder in tries(kept, tmp_path):
        said = refusal(lambda: use(folder, folder.parent / "page.html"), what)  # noqa: B023
        if path.name == SUMS and not said:  # one line end became another
            assert path.read_bytes().split() == (kept / SUMS).read_bytes().split()
            continue
        assert path.name in said or path.name == SUMS, f"{what}: {said or 'was accepted'}"
        assert "again" in said or "update llmsim" in said, f"{what}: {said}"


def test_without_digests_what_does_not_fit_is_refused_when_it_is_loaded(kept, tmp_path):
    """An older directory, or one edited on purpose: the form is checked, values are taken as they are."""
    for what, path, folder in tries(kept, tmp_path):
        (folder / SUMS).unlink()
        if path.name == SUMS:
            continue
        said = refusal(lambda: Result.load(folder), what)  # noqa: B023
        assert not said or str(folder) in said, what


@pytest.mark.parametrize("command", [["report"], ["export", "--to", "mooncake"], ["export", "--to", "chrome-trace"]])
def test_commands_say_it_in_one_line(tmp_path, capfd, command):
    folder = simulate(SPEC).save(tmp_path)
    table = pd.read_parquet(folder / "requests.parquet")
    table.drop(columns="id").to_parquet(folder / "requests.parquet")
    for sealed in (True, False):
        if not sealed:
            (folder / SUMS).unlink()
        told = typed(capfd, *command, folder)
        assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "", 1)
        assert f"{folder}/requests.parquet: " in told.stderr
        assert ("is not the file that was saved" if sealed else "has no column 'id'") in told.stderr


def test_a_newer_directory_says_to_update(tmp_path):
    folder = simulate(SPEC).save(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(ConfigError, match=r"meta.json: was written by a newer llmsim .format 99.*update llmsim"):
        Result.load(folder)


def test_points_with_other_figures_or_damage_are_refused(tmp_path):
    made = grid(seeds=2)
    folder = tmp_path / "kept"
    sweep_grid(made, folder, workers=1)
    points = sorted((folder / "points").iterdir())
    other = json.loads(points[1].read_text())
    for seed in range(TRIES):
        draw = random.Random(seed)
        copy = tmp_path / str(seed)
        shutil.copytree(folder, copy)
        path = copy / "points" / draw.choice(points[:1] + points[2:]).name if seed % 4 else copy / "sweep.json"
        how = draw.choice([cut, empty, flip, garble, "figures", "file"])
        if callable(how):
            before = path.read_bytes()
            how(path, draw)
            if path.read_bytes() == before:
                continue
        elif how == "figures" and seed % 4:
            path.write_text(json.dumps({**json.loads(path.read_text()), "figures": other["figures"]}))
        else:
            shutil.copy(points[1], path)
        said = refusal(lambda: sweep_grid(made, copy, workers=1), f"seed {seed}")  # noqa: B023
        assert f"{path}: " in said, f"seed {seed}: {how} {path.name}: {said or 'was accepted'}"
        shutil.rmtree(copy)
