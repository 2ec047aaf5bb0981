"""Grid files: what varies, and errors that name the file and the field."""

from __future__ import annotations

import pytest
import yaml

from llmsim.errors import ConfigError, LlmsimError
from llmsim.sweep.grid import load_grid
from llmsim.sweep.points import plan_of
from llmsim.sweep.values import values_of
from tests.sweep.grids import GRID, grid, grid_file, trace_file


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"from": 256, "to": 2048, "steps": 4, "scale": "log"}, [256, 512, 1024, 2048]),
        ({"from": 1, "to": 4, "steps": 4}, [1, 2, 3, 4]),
        ({"from": 1, "to": 2, "steps": 5}, [1.0, 1.25, 1.5, 1.75, 2.0]),
        ({"from": 0.1, "to": 0.4, "steps": 4}, [0.1, 0.2, 0.3, 0.4]),
        ({"from": 2, "to": 1, "steps": 2}, [2, 1]),
        ({"from": 100, "to": 1000, "steps": 4, "scale": "log", "round_to": 16}, [96, 208, 464, 992]),
        ({"from": "1e-2", "to": 1, "steps": 3, "scale": "log"}, [0.01, 0.1, 1.0]),
        (["a", True, 1, 2.5, None], ["a", True, 1, 2.5, None]),
    ],
)
def test_a_range_or_a_list_gives_these_values(given, values):
    found = values_of(given, "x")
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "must be a list of values, or a range {from, to, steps}, but got 5"),
        ([], "must be a list of values"),
        ([1, 2, 1.0], "1.0 is given twice"),
        ({"from": 1, "to": 2, "step": 5}, "no option 'step'. Did you mean 'steps'?"),
        ({"from": 1, "to": 2}, "a range needs 'steps'"),
        ({"from": 1, "to": 2, "steps": 1}, "steps must be a whole number from 2"),
        ({"from": 0, "to": 2, "steps": 3, "scale": "log"}, "ends above 0"),
        ({"from": 1, "to": 2, "steps": 3, "scale": "lgo"}, "Did you mean 'log'?"),
        ({"from": "many", "to": 2, "steps": 3}, "grid.yaml: rate.from must be a number but got 'many'"),
        ({"from": 1, "to": 2, "steps": 9, "round_to": 1}, "two steps fall together"),
        ([object()], "cannot be written down"),
    ],
)
def test_values_that_cannot_be_used_are_refused(given, said):
    with pytest.raises(ConfigError) as error:
        values_of(given, "grid.yaml: rate")
    assert said in str(error.value)
    assert str(error.value).startswith("grid.yaml: rate")


def test_a_grid_is_the_product_and_zipped_fields_go_together(tmp_path):
    changes = {
        "zip": {"cluster.replicas": [1, 2], "engine.num_blocks": [8000, 6000]},
        "seeds": [7, 3],
        "reference": {"cluster.replicas": 2},
    }
    plan, tasks = plan_of(load_grid(grid_file(tmp_path, **changes)))
    assert len(plan.points) == 2 * 2 * 2
    assert {(p["cluster.replicas"], p["engine.num_blocks"]) for p in plan.points} == {(1, 8000), (2, 6000)}
    assert plan.reference == [1, 1, 3, 3, 5, 5, 7, 7]
    assert [task.seed for task in tasks] == [7] * 8 + [3] * 8
    assert len({task.key for task in tasks}) == 16
    spec = tasks[3].spec
    assert (spec.workload.arrivals.rate, spec.cluster.replicas, spec.engine.num_blocks) == (1.0, 2, 6000)


def test_an_option_of_a_policy_varies_whether_it_is_a_name_a_line_or_a_mapping():
    for choice in ("sarathi", "sarathi,order=spf", {"name": "sarathi"}):
        varied = {"scheduler.chunk_size": [256, 512], "scheduler": [choice]}
        _, tasks = plan_of(load_grid(grid(grid=varied, reference=None, seeds=1)))
        assert [task.spec.scheduler["chunk_size"] for task in tasks] == [256, 512]


def test_an_engine_varies_with_the_options_of_the_policy_that_it_implies():
    # 128 tokens are fewer than the policy's own sequences, not than those that the engine's name settles.
    varied = {"scheduler.max_num_batched_tokens": [128, 512], "engine.name": ["vllm-0.15", "vllm-0.33"]}
    base = {key: value for key, value in grid()["base"].items() if key != "scheduler"}
    _, tasks = plan_of(load_grid(grid(base=base, grid=varied, reference=None, seeds=1)))
    assert [task.spec.engine.name for task in tasks] == ["vllm-0.15", "vllm-0.33"] * 2
    assert {task.spec.scheduler["name"] for task in tasks} == {"vllm_v1"}
    varied = {"scheduler": ["vllm_v1", "sarathi"], "engine.name": ["vllm-0.33"]}
    with pytest.raises(ConfigError, match=r"engine\.name=vllm-0\.33.*scheduler is 'sarathi' but engine\.name"):
        plan_of(load_grid(grid(grid=varied, reference=None)))


def test_schedulers_of_a_base_file_vary_and_its_paths_hold(tmp_path):
    (tmp_path / "runs").mkdir()
    trace_file(tmp_path / "runs" / "t.csv")
    base = GRID["base"] | {"schedulers": ["orca", "sarathi"], "workload": {"trace": "t.csv"}}
    (tmp_path / "runs" / "base.yaml").write_text(yaml.safe_dump(base))
    path = grid_file(tmp_path, base="runs/base.yaml", grid=None, reference=None)
    plan, tasks = plan_of(load_grid(path))
    assert tasks[0].spec.workload.trace == str(tmp_path / "runs" / "t.csv")
    assert plan.points == [{"scheduler": "orca"}, {"scheduler": "sarathi"}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 5}, "no option 'seed'. Did you mean 'seeds'?"),
        ({"workload": {}}, "A run goes under base."),
        ({"base": None}, "'base' is missing"),
        ({"base": "none.yaml"}, "base: there is no file"),
        ({"seeds": 0}, "seeds must be a count of at least 1"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"grid": {"seed": [1, 2]}}, "give seeds"),
        ({"grid": {"workload.arivals.rate": [1]}}, "[workload] has no option 'arivals'. Did you mean 'arrivals'?"),
        ({"grid": {"workload.arrivals.rate": ["x"]}}, "workload.arrivals.rate must be a number or null but got 'x'"),
        ({"grid": {"cluster.replicas": [1, 0]}}, "(cluster.replicas=0): cluster.replicas must be at least 1 but got 0"),
        (
            {"grid": {"scheduler": ["sarati"]}},
            "(scheduler=sarati): unknown scheduler 'sarati'. Did you mean 'sarathi'?",
        ),
        ({"grid": {"scheduler.chunk_sizes": [1]}}, "no option 'chunk_sizes'. Did you mean 'chunk_size'?"),
        ({"grid": {"calibration": ["h100/none"]}}, "there is no calibration 'h100/none'"),
        ({"grid": {"workload.trace": ["no.csv"]}}, "no.csv: no such file"),
        ({"grid": {"workload.trace.x": [1]}}, "'trace' holds 'sharegpt4', which has no keys"),
        ({"zip": {"cluster.replicas": [1, 2], "seed": [1]}}, "need the same number of values"),
        ({"zip": {"scheduler": ["orca"]}}, "scheduler varies twice"),
        ({"reference": {"sheduler": "vllm_v1"}}, "'sheduler' does not vary. Did you mean 'scheduler'?"),
        ({"reference": {"scheduler": "orca"}}, "none of the values that vary"),
        ({"name": "a/b"}, "name must be a word"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_runs(tmp_path, changes, said):
    if "grid" in changes:
        changes = {"reference": None, **changes}
    with pytest.raises(LlmsimError) as error:
        plan_of(load_grid(grid_file(tmp_path, **changes)))
    assert said in str(error.value)
    assert "grid.yaml" in str(error.value)
