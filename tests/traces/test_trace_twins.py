"""Shipped twins draw what the real files hold; damaged ones are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats  # type: ignore[import-untyped]

from llmsim import data
from llmsim.errors import TraceError
from llmsim.traces import shipped, twinfile
from llmsim.traces.readers import read_trace
from llmsim.traces.schema import Trace
from llmsim.traces.stats import trace_stats
from llmsim.traces.twins import load_twin, make_twin, parse_twin, sample
from llmsim.traces.workload import ArrivalsSpec, WorkloadSpec, build_workload
from tests.traces.conftest import REPO

Write = Callable[..., Path]
REAL = {
    "azure-code": "AzureLLMInferenceTrace_code.csv.gz",
    "azure-conv": "AzureLLMInferenceTrace_conv.csv.gz",
    "sharegpt4": "sharegpt4_8k_llama2_tokenizer_lengths.csv.gz",
}
FILE = REPO / "traces"


@pytest.mark.parametrize("name", REAL)
def test_a_sample_of_30000_is_like_the_real_file(shared: Path, name: str) -> None:
    real = read_trace(shared / REAL[name]).requests
    spec = WorkloadSpec(
        trace=str(FILE / f"{name}.json"), num_requests=30_000, arrivals=ArrivalsSpec(kind="all_at_once")
    )
    spearman = stats.spearmanr(real["prompt_tokens"], real["output_tokens"]).statistic
    for seed in range(3):
        drawn = build_workload(spec, seed)
        for column in ("prompt_tokens", "output_tokens"):
            distance = stats.ks_2samp(getattr(drawn, column), real[column], method="asymp").statistic
            assert distance < 0.02
        assert abs(stats.spearmanr(drawn.prompt_tokens, drawn.output_tokens).statistic - spearman) < 0.02


@pytest.mark.parametrize("name", REAL)
def test_the_twin_itself_is_close_when_sampling_noise_is_small(shared: Path, name: str) -> None:
    # A sample of 30,000 exceeds 0.02 by chance on about one seed in 300, as rows of the real file do; this
    # bound does not hang on the seed.
    real = read_trace(shared / REAL[name]).requests
    prompt, output = load_twin(FILE / f"{name}.json").draw(1_000_000, np.random.default_rng(0))
    assert stats.ks_2samp(prompt, real["prompt_tokens"], method="asymp").statistic < 0.005
    assert stats.ks_2samp(output, real["output_tokens"], method="asymp").statistic < 0.005
    spearman = stats.spearmanr(real["prompt_tokens"], real["output_tokens"]).statistic
    assert abs(stats.spearmanr(prompt, output).statistic - spearman) < 0.005


@pytest.mark.parametrize("name", ["azure-code", "azure-conv"])
def test_arrivals_of_a_twin_are_about_those_of_the_real_file(shared: Path, name: str) -> None:
    real = trace_stats(read_trace(shared / REAL[name]))["arrivals"]
    for seed in range(3):
        drawn = trace_stats(sample(load_twin(FILE / f"{name}.json"), seed=seed))["arrivals"]
        assert drawn["span_s"] == pytest.approx(real["span_s"], rel=0.01)
        assert drawn["gap_cv"] == pytest.approx(real["gap_cv"], rel=0.15)
        assert drawn["idc_1s"] == pytest.approx(real["idc_1s"], rel=0.25)
        assert drawn["idc_60s"] == pytest.approx(real["idc_60s"], rel=0.05)


@pytest.mark.parametrize("name", REAL)
def test_a_shipped_twin_is_what_its_remake_command_makes(shared: Path, name: str) -> None:
    assert (FILE / f"{name}.json").read_text() == twinfile.dump(
        make_twin(read_trace(shared / REAL[name]), name)
    )


@pytest.mark.parametrize("name", REAL)
def test_a_shipped_twin_says_where_it_comes_from(name: str) -> None:
    twin = json.loads((FILE / f"{name}.json").read_text())
    assert len(twin["prompt_tokens"]) >= 201
    assert len(twin["output_tokens"]) >= 201
    provenance = twin["provenance"]
    assert ("CC-BY-4.0" if name.startswith("azure") else "Apache-2.0") in provenance["licence"]
    assert f"llmsim trace twin {provenance['source_file']}" in provenance["remake"]
    assert len(provenance["source_sha256"]) == 64
    assert ("arrivals" in twin) == name.startswith("azure")


@pytest.mark.alone
def test_drawing_is_fast() -> None:
    start = time.perf_counter()
    load_twin(FILE / "azure-conv.json").draw(100_000, np.random.default_rng(0))
    assert time.perf_counter() - start < 1


def make_table(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    prompt = np.where(rng.random(n) < 0.3, 100, rng.integers(1, 1000, n))
    return pd.DataFrame({"prompt_tokens": prompt, "output_tokens": prompt // 2 + rng.integers(1, 50, n)})


def test_atoms_and_dependence_survive() -> None:
    table = make_table(5000, 2)
    prompt, output = parse_twin(make_twin(Trace.from_table(table))).draw(30_000, np.random.default_rng(1))
    assert (prompt == 100).mean() == pytest.approx((table["prompt_tokens"] == 100).mean(), abs=0.015)
    expected = stats.spearmanr(table["prompt_tokens"], table["output_tokens"]).statistic
    assert stats.spearmanr(prompt, output).statistic == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 39, 41])
def test_a_twin_of_few_rows_stays_in_their_range(n: int) -> None:
    table = make_table(n, 3).assign(arrival_ns=np.arange(n) * 10**9)
    twin = parse_twin(make_twin(Trace.from_table(table)))
    assert twin.has_arrivals == (n > 1)
    prompt, output = twin.draw(500, np.random.default_rng(1))
    assert table["prompt_tokens"].min() <= prompt.min() <= prompt.max() <= table["prompt_tokens"].max()
    assert table["output_tokens"].min() <= output.min() <= output.max() <= table["output_tokens"].max()


def test_arrival_counts_per_slot_are_kept_and_start_over() -> None:
    arrival = np.sort(np.random.default_rng(4).integers(0, 95 * 10**9, 300))
    arrival[0] = 0
    table = make_table(300, 1).assign(arrival_ns=arrival)
    twin = parse_twin(make_twin(Trace.from_table(table)))
    assert twin.arrivals is not None
    drawn = twin.arrivals.draw(600, np.random.default_rng(5))
    assert (np.diff(drawn) >= 0).all()
    once = np.bincount(arrival // 10**10, minlength=10)
    assert np.abs(np.bincount(drawn // 10**10, minlength=20)[:20] - np.tile(once, 2)).max() <= 1
    assert twin.arrivals.draw(50, np.random.default_rng(5)).tolist() == drawn[:50].tolist()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("rows", None),
        ("probability", [0, 0.5]),
        ("prompt_tokens", [3, 2, 1]),
        ("copula", [[0, 0], [0, 0]]),
        ("copula", [1, 2]),
        ("arrivals", {"slot_s": 10, "counts": [0], "gaps": [0, 1]}),
        ("arrivals", {"slot_s": 10, "counts": [1], "gaps": [2, 1]}),
    ],
)
def test_a_damaged_twin_is_refused(write: Write, key: str, value: object) -> None:
    twin = make_twin(Trace.from_table(make_table(50, 1)))
    path = write(twinfile.dump({**twin, key: value}), "t.json")
    with pytest.raises(TraceError, match=r"t\.json: damaged twin .*; make it again"):
        load_twin(path)


def test_a_file_that_is_no_twin_is_refused(write: Write) -> None:
    with pytest.raises(TraceError, match="does not begin a twin"):
        load_twin(write("a,b\n1,2\n"))
    with pytest.raises(TraceError, match="damaged twin"):
        load_twin(write('{"kind": "llmsim-trace-twin", "vers', "t.json"))


@pytest.mark.parametrize("layout", ["checkout", "wheel"])
def test_shipped_names_are_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    package = tmp_path / "llmsim"
    folder = tmp_path / "traces" if layout == "checkout" else package / "_data" / "traces"
    folder.mkdir(parents=True)
    (folder / "tiny-chat.json").write_text("{}")
    if layout == "checkout":
        (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(data, "PACKAGE", package)
    assert shipped.find("tiny-chat") == shipped.resolve("tiny-chat") == folder / "tiny-chat.json"
    assert shipped.names() == ["tiny-chat"]
    with pytest.raises(
        TraceError, match=r"no shipped workload is called 'tiny-chart'.*Did you mean 'tiny-chat'"
    ):
        shipped.find("tiny-chart")


def test_a_folder_named_traces_beside_the_package_is_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "x.json").write_text("{}")
    monkeypatch.setattr(data, "PACKAGE", tmp_path / "llmsim")
    with pytest.raises(TraceError, match="no shipped workload"):
        shipped.find("x")
