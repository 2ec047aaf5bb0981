"""Models that requests ask for: from a column, from classes, and back into a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmsim.errors import ConfigError, TraceError
from llmsim.spec.run_spec import load_runs
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.export import workload_table, write_trace
from llmsim.traces.readers import read_trace
from llmsim.traces.workload import ClassSpec, Workload, WorkloadSpec, build_workload

Write = Callable[..., Path]
ASKED = "arrival_s,prompt_tokens,output_tokens,model\n0,10,1,small\n1,20,2,big\n2,30,3,\n3,40,4,small\n"


def models(workload: Workload) -> list[str | None]:
    return [workload.slo_classes[i].model for i in workload.slo_index]


def test_a_column_names_the_model_of_each_row_and_an_empty_cell_none(write: Write) -> None:
    workload = build_workload(WorkloadSpec(trace=str(write(ASKED))), 0)
    assert models(workload) == ["small", "big", None, "small"]
    assert {c.name for c in workload.slo_classes} == {"default"}
    assert [request.slo.model for request in workload.requests()] == models(workload)


def test_a_column_of_another_name_is_mapped(write: Write) -> None:
    columns = {"prompt_tokens": "in", "output_tokens": "out", "model": "Model"}
    trace = read_trace(write("in,out,Model\n1,2,GPT-4\n3,4,ChatGPT\n"), columns=columns)
    assert trace.requests["model"].tolist() == ["GPT-4", "ChatGPT"]


def test_classes_without_a_model_leave_the_rows_theirs_and_classes_with_one_do_not(write: Write) -> None:
    classes = (ClassSpec(name="a", share=0.5, tbt_s=0.1), ClassSpec(name="b", share=0.5, model="other"))
    rows = "".join(f"{i},10,1,{'small' if i % 2 else 'big'}\n" for i in range(200))
    spec = WorkloadSpec(trace=str(write("arrival_s,prompt_tokens,output_tokens,model\n" + rows)), classes=classes)
    workload = build_workload(spec, 3)
    for i, request in enumerate(workload.requests()):
        own = "small" if i % 2 else "big"
        assert request.slo.model == ("other" if request.slo.name == "b" else own)
        assert request.slo.tbt_s == (0.1 if request.slo.name == "a" else None)
    without = build_workload(WorkloadSpec(trace=spec.trace, classes=(*classes[:1], ClassSpec(name="b", share=0.5))), 3)
    names = [[w.slo_classes[i].name for i in w.slo_index] for w in (workload, without)]
    assert names[0] == names[1], "a model moves no request to another class"


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_models_are_written_and_read_again(tmp_path: Path, name: str) -> None:
    classes = (ClassSpec(name="a", share=0.5, model="small"), ClassSpec(name="b", share=0.5, model="big"))
    spec = WorkloadSpec(
        trace="sharegpt4", num_requests=50, classes=classes, arrivals=ArrivalsSpec(kind="poisson", rate=2.0)
    )
    workload = build_workload(spec, 1)
    path = write_trace(workload_table(workload), tmp_path / name)
    again = build_workload(WorkloadSpec(trace=str(path)), 1)
    assert models(again) == models(workload)


def test_limits_by_model_hold_each_request_to_its_own(write: Write) -> None:
    path = str(write(ASKED.replace("2,30,3,\n", "2,30,3,big\n")))
    limits = {"small": 15, "big": 30}
    with pytest.raises(TraceError, match="request 3, prompt_tokens: 40 is longer than the limit"):
        # Not beyond the longest limit, to which the file is held: its row is no longer known here.
        build_workload(WorkloadSpec(trace=path, on_long="error"), 0, {"small": 15, "big": 60})
    with pytest.raises(TraceError, match=r"row 5, column 'prompt_tokens': '40' is longer than the model's limit of 30"):
        build_workload(WorkloadSpec(trace=path, on_long="error"), 0, limits)
    dropped = build_workload(WorkloadSpec(trace=path, on_long="drop"), 0, limits)
    assert dropped.prompt_tokens.tolist() == [10, 20]
    assert dropped.dropped == {"prompt_too_long": 1, "total_too_long": 1}
    clipped = build_workload(WorkloadSpec(trace=path, on_long="clip"), 0, limits)
    both = clipped.prompt_tokens + clipped.output_tokens
    assert (both <= np.array([limits[model] for model in models(clipped)])).all()
    assert clipped.description["clipped"] == 2
    assert clipped.description["max_model_len"] == limits


def test_one_limit_for_all_models_is_the_plain_limit(write: Write) -> None:
    path = str(write(ASKED.replace("2,30,3,\n", "2,30,3,big\n")))
    for on_long in ("drop", "clip"):
        spec = WorkloadSpec(trace=path, on_long=on_long)
        one, other = build_workload(spec, 0, 25), build_workload(spec, 0, {"small": 25, "big": 25})
        assert one.prompt_tokens.tolist() == other.prompt_tokens.tolist()
        assert one.output_tokens.tolist() == other.output_tokens.tolist()
        assert (one.dropped, one.description["clipped"]) == (other.dropped, other.description["clipped"])


def test_rows_that_name_no_model_where_several_are_served_are_an_error(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"1 of 4 requests \(class 'default'\) name no model"):
        build_workload(WorkloadSpec(trace=str(write(ASKED))), 0, {"small": 100, "big": 100})


@pytest.mark.parametrize("model", ["", " ", 3])
def test_a_class_with_no_name_for_its_model_is_refused(model: object) -> None:
    with pytest.raises(ConfigError, match="model must be a name"):
        ClassSpec(model=model)  # type: ignore[arg-type]


def test_the_guides_file_of_ones_own_works_as_written(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "traces.md").read_text()
    (tmp_path / "chat.csv").write_text(re.findall(r"```csv\n(.*?)```", text, re.S)[0])
    run = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "chat.csv" in block)
    (tmp_path / "run.yaml").write_text(run + "calibration: a100/llama-3-8b\n")
    workload = build_workload(load_runs(tmp_path / "run.yaml")[0].workload, 0)
    assert workload.prompt_tokens.tolist() == [812, 40]
    assert [workload.slo_classes[at].model for at in workload.slo_index] == ["llama-3-8b", "mistral-7b"]
    assert workload.arrival_ns.tolist() == [0, 650_000_000]
