"""compare_summaries.py: the same seed draws the same specs, a planted difference is found, and where it is is said."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from compare_summaries import ROOT, Verdict, main, tree_of
from summary_differences import Difference, differences, explain
from summary_policies import ROUTERS, SCHEDULERS
from summary_specs import INDEX, MISTAKES, WAYS, draw_specs, read_index

import llmsim

PLANTED = """
from dataclasses import replace

__path__ = [{real!r}]
with open({real!r} + "/__init__.py", encoding="utf-8") as file:
    exec(compile(file.read(), file.name, "exec"))
_true = __getattr__("simulate")


def simulate(spec, **options):
    result = _true(spec, **options)
    result.requests.loc[3, "finish_ns"] += 1
    return replace(result, summary=result.summary | {{"preemptions": "one more"}})
"""
"""A package llmsim that is ours but for `simulate`: one number of the summary and one cell of a table are wrong."""


def record(**changes):
    run = {
        "summary": '{"a": {"b": [1, 2]}, "c": 3}',
        "tables": {"requests": {"id": "x"}},
        "manifest": {},
        "warnings": [],
    }
    return {"error": None, "printed": {}, "runs": [run | changes]}


def test_the_same_seed_writes_the_same_bytes_however_many_are_drawn(tmp_path):
    few, many, other = (tmp_path / name for name in ("few", "many", "other"))
    for folder, count, seed in ((few, 15, 3), (many, 40, 3), (other, 15, 4)):
        folder.mkdir()
        assert draw_specs(count, seed, folder) == read_index(folder)
    files = {path.name: path.read_bytes() for path in few.iterdir() if path.name != INDEX}
    assert files == {name: (many / name).read_bytes() for name in files}
    assert files["spec-000.yaml"] != (other / "spec-000.yaml").read_bytes()


def test_sixty_specs_cover_every_policy_and_router(tmp_path):
    drawn = draw_specs(60, 0, tmp_path)
    for what, known in (("scheduler", SCHEDULERS), ("router", ROUTERS)):
        assert {one.facts[what] for one in drawn if what in one.facts} == set(known)
    assert sum("mistake" in one.facts for one in drawn) == 4
    assert len(MISTAKES) == 10


@pytest.mark.parametrize(("kind", "known"), [("scheduler", SCHEDULERS), ("cluster.router", ROUTERS)])
def test_every_built_in_policy_may_be_drawn(kind, known):
    workload = {"lengths": {"kind": "synthetic", "prompt": {"value": 8}, "output": {"value": 8}}, "num_requests": 1}
    run = {"workload": workload | {"arrivals": {"kind": "all_at_once"}}, "calibration": "amd-epyc/tiny"}
    with pytest.raises(llmsim.LlmsimError) as refused:
        llmsim.simulate(llmsim.load_runs(overrides=[f"{kind}='?'"], mapping=run)[0])
    names = re.search(r"Known: ([\w, ]+)\.", str(refused.value))
    assert names is not None
    assert set(names[1].split(", ")) == {name for name in known if ":" not in name}


def test_equal_records_have_no_difference():
    assert differences(record(), record()) == []


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (record(summary='{"a": {"b": [1, 2.0]}, "c": 4}'), ("run 0.summary.a.b.1", "2", "2.0", 1)),
        (record(summary='{"a": {"b": [1]}, "c": 3}'), ("run 0.summary.a.b.1", "2", "absent", 0)),
        (record(summary='{"c": 3, "a": {"b": [1, 2]}}'), ("run 0.summary, order or spelling",)),
        (record(tables={"requests": {"id": "y"}}), ("run 0.tables.requests.id", '"x"', '"y"', 0)),
        (record(warnings=["late"]), ("run 0.warnings",)),
        (record() | {"error": "no such file"}, ("error, line 1", "absent", "no such file", 0)),
        (record() | {"runs": []}, ("run 0.summary.a.b.0", "1", "absent", 2)),
    ],
)
def test_the_first_key_that_differs_is_named(there, said):
    assert differences(record(), there)[0][: len(said)] == said
    assert differences(there, record())


def test_a_table_that_differs_is_shown_by_row(tmp_path):
    for side, values in (("here", [1, 2, 3]), ("there", [1, 2, 4])):
        (tmp_path / side).mkdir()
        pd.DataFrame({"id": values}).to_parquet(tmp_path / side / "requests.parquet")
    found = Difference("run 0.tables.requests.id", "x", "y")
    shown = explain(found, [tmp_path / "here"], [tmp_path / "there"])
    assert shown == Difference("run 0.tables.requests.id, row 2", "3", "4")
    assert explain(found, [], []) == found


def test_a_comparison_of_errors_is_not_good():
    assert Verdict(["a"] * 9, {"b": "wrong"}, {}, {}).good
    assert not Verdict(["a"] * 3, {"b": "wrong", "c": "wrong"}, {}, {}).good


def test_a_planted_difference_is_found(tmp_path, capsys):
    package = tmp_path / "tree" / "llmsim"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(PLANTED.format(real=str(ROOT / "llmsim")), encoding="utf-8")
    folder = tmp_path / "kept"
    assert main(["--against", str(package.parent), "--specs", str(len(WAYS)), "--keep", str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"{len(WAYS)} specs: {len(WAYS) - 1} equal, 0 with the same error, 1 differ" in said  # each way once
    file = re.search(r"DIFFERS: (spec-\d+\.yaml) \(memory;", said)
    assert file is not None
    assert (folder / "specs" / file[1]).is_file()
    assert re.search(r'run 0\.summary\.preemptions: \d+ here, "one more" there\n', said)
    cell = re.search(r"run 0\.tables\.requests\.finish_ns, row 3: (\d+) here, (\d+) there", said)
    assert cell is not None
    assert int(cell[2]) == int(cell[1]) + 1


def test_what_is_no_tree_is_refused(tmp_path, capsys):
    assert main(["--against", "no-such-commit", "--specs", "1"]) == 2
    assert "error: no-such-commit cannot be checked out" in capsys.readouterr().err
    with tree_of(str(ROOT), tmp_path / "tree") as tree:
        assert tree == Path(ROOT)
