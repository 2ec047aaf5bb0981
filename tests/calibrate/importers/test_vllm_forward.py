"""What `vllm bench forward` measured becomes a calibration, or is refused with what was found and what to do."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.fitting.fit_result import BatchTimeFit
from llmsim.calibrate.importers import vllm_forward
from llmsim.calibrate.importers.options import ImportOptions
from llmsim.calibrate.importers.registry import importer_named
from llmsim.calibrate.importers.vllm_forward import forward_table, import_vllm_forward, read_forward
from llmsim.calibrate.importers.vllm_shapes import main
from llmsim.cli import app
from llmsim.costs.calibration import load_calibration
from llmsim.errors import CalibrationError, CapacityError, ConfigError
from tests.calibrate.importers.forward_files import LINEAR, PLAN, forward_cases, write_forward

GIVEN: dict[str, Any] = {"device": "h100", "model": "llama-3-8b", "host_us": 800.0, "num_blocks": 27000}
CASES = forward_cases()


@pytest.fixture(autouse=True, scope="module")
def equal_tables_are_fitted_once() -> Iterator[None]:
    """Most tests import the same batches, and the fit depends on the table alone."""
    fits: dict[str, BatchTimeFit] = {}
    fit_batch_time = vllm_forward.fit_batch_time

    def fitted(table: pd.DataFrame) -> BatchTimeFit:
        key = table.to_csv()
        if key not in fits:
            fits[key] = fit_batch_time(table)
        return fits[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_forward, "fit_batch_time", fitted)
        yield


def imported(tmp_path: Path, cases: object = None, **options: Any):
    path = write_forward(tmp_path / "forward.json", CASES if cases is None else cases)
    return import_vllm_forward(path, ImportOptions(**{**GIVEN, **options}))


def spoiled(keys: str, value: Any) -> list[dict[str, Any]]:
    """The cases with one value of the first set, or removed where it is `...`."""
    cases = copy.deepcopy(CASES)
    *parents, last = [int(key) if key.isdigit() else key for key in keys.split("/")]
    held: Any = cases[0]
    for key in parents:
        held = held[key]
    if value is ...:
        del held[last]
    else:
        held[last] = value
    return cases


def test_the_price_that_made_the_file_is_found_and_its_errors_are_held_out(tmp_path: Path) -> None:
    calibration = imported(tmp_path)
    found = {item.name: item.value for item in calibration.batch_time.coefficients}
    assert calibration.name == "h100/llama-3-8b"
    assert found["constant"] == pytest.approx(5e-3, rel=0.01)
    assert found["per_token"] == pytest.approx(3e-5, rel=0.01)
    assert found["per_decode_context"] == pytest.approx(3e-8, rel=0.01)
    assert calibration.errors.held_out is not None
    assert calibration.errors.held_out.cases == len(CASES)
    assert calibration.errors.held_out.mape_pct < 0.5


def test_the_table_holds_the_batches_as_they_were_run(tmp_path: Path) -> None:
    path = write_forward(tmp_path / "forward.json", CASES)
    table = forward_table(read_forward(path, path.read_bytes()))
    for case, (_, row) in zip(PLAN.cases, table.iterrows(), strict=True):
        assert [row[name] for name in SUMS] == [getattr(case.work(), name) for name in SUMS]
        assert row["seconds"] == pytest.approx(LINEAR.seconds(case.work()), rel=0.003)
        assert row["repeats"] == 20


def test_what_the_file_cannot_say_is_said_by_options_and_by_the_shape(tmp_path: Path) -> None:
    calibration = imported(tmp_path, max_model_len=4096)
    assert calibration.host_overhead.seconds == pytest.approx(8e-4)
    assert not calibration.host_overhead.included_in_batch_times
    assert "LM head" in calibration.host_overhead.source
    assert (calibration.kv.num_blocks, calibration.kv.block_bytes) == (27000, 2 * 2**20)
    assert (calibration.max_model_len, calibration.limit.native_max_model_len) == (4096, 8192)


def test_the_origin_is_named_with_its_hash_and_the_command_without_its_folder(tmp_path: Path) -> None:
    held = imported(tmp_path).provenance
    assert f"forward.json, sha256 {hashlib.sha256((tmp_path / 'forward.json').read_bytes()).hexdigest()}" in held.source
    assert held.command == (
        "llmsim calibrations import forward.json --from vllm-forward --device h100 --model llama-3-8b"
        " --num-blocks 27000 --host-us 800 --out calibrations/h100/llama-3-8b.json"
    )
    assert str(tmp_path) not in imported(tmp_path).to_json()
    assert any("LM head" in note for note in held.notes)


def test_without_blocks_the_memory_of_a_known_card_is_planned(tmp_path: Path) -> None:
    planned = imported(tmp_path, num_blocks=None).kv
    assert "Memory plan, not measured" in planned.source
    less = imported(tmp_path, num_blocks=None, tp=1, engine="vllm-0.19").kv
    assert less.num_blocks == planned.num_blocks
    with pytest.raises(CalibrationError, match=r"--num-blocks is needed: .* GPU 'b200'.*GPU KV cache size"):
        imported(tmp_path, num_blocks=None, device="b200")
    with pytest.raises(CalibrationError, match=r"--num-blocks is needed: .*'my-model' is no shape"):
        imported(tmp_path, num_blocks=None, model="my-model", max_model_len=4096)
    with pytest.raises(CapacityError, match="give the --num-blocks that it printed"):
        imported(tmp_path, num_blocks=None, device="rtx-4090", model="mistral-7b", tp=1, block_size=2**20)


def test_a_model_without_a_shape_needs_its_sizes(tmp_path: Path) -> None:
    own = imported(tmp_path, model="my-moe", block_bytes=983040, max_model_len=32768)
    assert own.name == "h100/my-moe"
    assert own.kv.block_bytes == 983040
    with pytest.raises(CalibrationError, match="--block-bytes is needed"):
        imported(tmp_path, model="my-moe", max_model_len=32768)
    with pytest.raises(CalibrationError, match=r"--max-model-len is needed.*Did you mean 'llama-3-8b'"):
        imported(tmp_path, model="lama-3-8b", block_bytes=1)
    with pytest.raises(CalibrationError, match="--host-us is needed: the file does not hold the LM head"):
        imported(tmp_path, host_us=None)


def test_names_and_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"--model must be lower-case.*such as 'llama-3.1-8b'"):
        imported(tmp_path, model="meta-llama/Llama-3.1-8B")
    with pytest.raises(CalibrationError, match=r"--device must be lower-case.*such as 'nvidia-h200'"):
        imported(tmp_path, device="NVIDIA H200")
    with pytest.raises(CalibrationError, match="--host-us must be above 0 but got -1"):
        imported(tmp_path, host_us=-1.0)
    with pytest.raises(CalibrationError, match="--engine only says"):
        imported(tmp_path, engine="vllm-0.19")
    with pytest.raises(CalibrationError, match="--all-reduce changes nothing"):
        imported(tmp_path, all_reduce="all_reduce.parquet")


def test_ranks_are_tensor_parallel_or_replicas(tmp_path: Path) -> None:
    two = forward_cases(ranks=2)
    shared = imported(tmp_path, two, tp=2)
    assert shared.name == "h100/llama-3-8b-tp2"
    assert shared.kv.block_bytes == 2**20
    assert not any("replicas" in note for note in shared.provenance.notes)
    assert any("2 ranks, 2 replicas of 1" in note for note in imported(tmp_path, two).provenance.notes)
    with pytest.raises(CalibrationError, match="measured on 2 ranks, which --tp 4 does not divide"):
        imported(tmp_path, two, tp=4)


def test_blocks_of_another_size_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="those of blocks of 32 tokens, not of 16; give --block-size 32"):
        imported(tmp_path, forward_cases(block_size=32))
    assert imported(tmp_path, forward_cases(block_size=32), block_size=32).kv.block_size == 32
    odd = spoiled("ranks/0/kv_blocks", 7)
    assert any("several kinds of KV cache" in note for note in imported(tmp_path, odd).provenance.notes)


def test_a_name_with_other_characters_and_values_that_are_not_finite_are_no_obstacle(tmp_path: Path) -> None:
    cases = spoiled("case", "8192,32*1@8192")
    cases[1]["ranks"][0]["finite"] = False
    notes = imported(tmp_path, cases).provenance.notes
    assert any(f"1 of {len(CASES)} cases computed values that are not finite" in note for note in notes)


RANK, LATENCY = "ranks/0", "ranks/0/latency_us"
BAD = [
    ("requests/0/num_draft_tokens", 3, r"cases\[0\].requests\[0\].num_draft_tokens is 3; speculative decoding"),
    ("requests/0/num_draft_tokens", ..., "num_draft_tokens is missing; the object has query_len, kv_len, chunked"),
    ("requests/0/lora", 1, "lora is not a key of this object"),
    ("requests/0/kv_len", 0, "kv_len must be a whole number of at least 1 but got 0"),
    (f"{RANK}/num_tokens", 9999, "num_tokens is 9999, but its requests have .* sliding window"),
    (f"{RANK}/timing_scope", "target_and_drafter", "measure with --exclude-drafter"),
    (f"{LATENCY}/timer", "pipeline_correlated_gpu_events_rank_max", "--pipeline-parallel-size 1"),
    (f"{LATENCY}/samples_us", [], "samples_us must hold times above 0"),
    (f"{LATENCY}/samples_us", [1.0, 2.0], "median_us is .*, not the median of rank 0's samples_us"),
    ("median_us", float("nan"), "median_us must be a finite number"),
    ("median_us", ..., "median_us is missing; the object has case, requests, ranks"),
    ("ranks", [], "ranks must not be an empty list"),
]


@pytest.mark.parametrize(("keys", "value", "message"), BAD, ids=[f"{keys}={value!r:.20}" for keys, value, _ in BAD])
def test_another_layout_is_refused_with_what_was_found(
    tmp_path: Path, keys: str, value: Any, message: str
) -> None:
    with pytest.raises(CalibrationError, match=f"forward.json: .*{message}"):
        imported(tmp_path, spoiled(keys, value))


def test_a_file_that_is_no_list_of_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"must be the list of cases .* object with avg_latency, latencies"):
        imported(tmp_path, {"avg_latency": 1.0, "latencies": []})
    with pytest.raises(CalibrationError, match="cases must not be an empty list"):
        imported(tmp_path, [])
    with pytest.raises(CalibrationError, match="holds 12 different cases but a fit needs at least 20"):
        imported(tmp_path, CASES[:12])
    (tmp_path / "cut.json").write_text("[{", encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"cut.json: is not valid JSON"):
        import_vllm_forward(tmp_path / "cut.json", ImportOptions(**GIVEN))
    with pytest.raises(CalibrationError, match=r"none.json: cannot be read"):
        import_vllm_forward(tmp_path / "none.json", ImportOptions(**GIVEN))


def test_the_command_writes_a_file_that_simulate_takes(tmp_path: Path) -> None:
    path, out = write_forward(tmp_path / "forward.json", CASES), tmp_path / "new" / "mine.json"
    words = f"calibrations import {path} --from vllm-forward --device h100 --model llama-3-8b --host-us 800 --out {out}"
    ran = CliRunner().invoke(app, words.split())
    assert ran.exit_code == 0, ran.output
    assert "h100/llama-3-8b: linear, held-out error 0." in ran.stdout
    assert "note: Not in them either" in ran.stderr
    calibration = load_calibration(out)
    batch = PLAN.cases[0].work()
    assert calibration.cost_model().seconds(batch) == pytest.approx(LINEAR.seconds(batch) + 8e-4, rel=0.01)


def test_a_plan_becomes_a_file_of_shapes_that_vllm_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("llama-8b-h200") == 0
    printed = capsys.readouterr()
    held = json.loads(printed.out)["cases"]
    assert f"{len(held)} of 180 cases" in printed.err
    assert len(held) > 150
    for one in (request for case in held for request in case["requests"]):
        before = one["kv_len"] - one["query_len"]
        assert before >= 0
        assert not one["chunked"] or (before and one["query_len"] > 1)
    assert main("llama") == 1
    assert "there is no plan 'llama'" in capsys.readouterr().err


def test_an_unknown_kind_of_file_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--from 'vllm_forward' is no kind .* Did you mean 'vllm-forward'"):
        importer_named("vllm_forward")
    words = "calibrations import x.json --from vllm-forward --device h100 --model llama-3-8b --out x"
    assert "--out must end in .json" in str(CliRunner().invoke(app, words.split()).exception)
