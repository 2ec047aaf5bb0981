"""The shipped calibrations: made again by one command, and as good as their files say."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmsim.calibrate.published import a100_niyama
from llmsim.core.batch import Work
from llmsim.costs.calibration import Calibration, read_calibration
from llmsim.costs.linear import Linear
from llmsim.errors import CalibrationError

SHIPPED = Path(__file__).parents[2] / "calibrations"
SHARED = Path(os.environ.get("LLMSIM_SHARED", Path(__file__).parents[3] / "shared"))
MICROBENCHMARK = SHARED / "groundtruth" / "slai_microbenchmark.csv"
NIYAMA = SHIPPED / "a100" / "llama-3-8b.json"
SLAI = SHIPPED / "rtx-6000-ada" / "mistral-7b.json"


@pytest.fixture
def measured() -> pd.DataFrame:
    """The micro-benchmark, where it is."""
    pytest.importorskip("sklearn")
    if not MICROBENCHMARK.is_file():
        pytest.skip("the micro-benchmark is not here")
    from llmsim.calibrate.published.slai_microbenchmark import read_microbenchmark

    return read_microbenchmark(MICROBENCHMARK)


def test_refitting_gives_the_shipped_file(measured: pd.DataFrame, tmp_path: Path) -> None:
    from llmsim.calibrate.published import rtx_6000_ada

    rtx_6000_ada.main([str(MICROBENCHMARK), "--out", str(tmp_path / "new.json")])
    assert (tmp_path / "new.json").read_text(encoding="utf-8") == SLAI.read_text(encoding="utf-8")


def test_the_fit_is_as_good_as_stated(measured: pd.DataFrame) -> None:
    from llmsim.calibrate.published.slai_microbenchmark import relative_errors
    from llmsim.calibrate.published.slai_segments import fit_segments, held_out_errors

    errors = np.abs(relative_errors(fit_segments(measured).seconds, measured))
    assert errors.max() < 0.005
    assert errors.mean() < 0.003
    held_out = np.abs(held_out_errors(measured))
    assert held_out.max() < 0.14  # 256 tokens: without its knot nobody would see the bend
    assert held_out.mean() < 0.039


def test_the_file_prices_as_the_fit_does(measured: pd.DataFrame) -> None:
    from llmsim.calibrate.published.slai_microbenchmark import decode_work, prefill_works
    from llmsim.calibrate.published.slai_segments import fit_segments

    model, fit = read_calibration(SLAI).cost_model(), fit_segments(measured)
    works = [decode_work(), *(work for chunk in (64, 100, 384, 500, 1024, 2048) for work in prefill_works(chunk))]
    assert [model.seconds(work) for work in works] == pytest.approx([fit.seconds(work) for work in works], rel=1e-9)


def test_segments_meet_and_never_fall() -> None:
    model = read_calibration(SLAI).cost_model()
    prices = [model.seconds(Work(prefill_tokens=n, prefill_seqs=1)) for n in range(1, 2100)]
    assert all(later >= earlier * (1 - 1e-5) for earlier, later in pairwise(prices))
    assert max(b - a for a, b in pairwise(prices)) < 1.2e-4


def test_a_prompt_in_chunks_of_384_is_slower_than_in_chunks_of_256_as_measured() -> None:
    from llmsim.calibrate.published.slai_microbenchmark import prefill_works

    model = read_calibration(SLAI).cost_model()
    ttft = {chunk: sum(map(model.seconds, prefill_works(chunk))) for chunk in (256, 384, 512)}
    # Six chunks, the last of 128 tokens: the remainder effect of the measurement.
    assert ttft[384] > ttft[256] > ttft[512]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chunk,ttft_ms\n64,1\n", "column 'batch_ms' is missing"),
        ("chunk,ttft_ms,batch_ms\n64,1,1\n", "at least 3 rows"),
        ("chunk,ttft_ms,batch_ms\n64,1,1\n128,x,1\n256,1,1\n", "positive numbers"),
        ("chunk,ttft_ms,batch_ms\n64,1,1\n128,-1,1\n256,1,1\n", "positive numbers"),
        ("chunk,ttft_ms,batch_ms\n64,1,1\n128,,1\n256,1,1\n", "positive numbers"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_bad_measurement_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    from llmsim.calibrate.published.slai_microbenchmark import read_microbenchmark

    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match=message) as error:
        read_microbenchmark(path)
    assert str(path) in str(error.value)


def test_the_published_predictor_gives_the_shipped_file(tmp_path: Path) -> None:
    a100_niyama.main(["--out", str(tmp_path / "new.json")])
    assert (tmp_path / "new.json").read_text(encoding="utf-8") == NIYAMA.read_text(encoding="utf-8")


@pytest.mark.parametrize("limit", [512, None])
def test_effective_coefficients_price_as_the_published_ones(limit: int | None) -> None:
    row = {name: float(text) for name, text in a100_niyama.PREDICTOR[limit].items()}
    model = read_calibration(NIYAMA).cost_model()
    prefill, decodes, context, past = (300, 200, 90_000, 4000) if limit else (1800, 120, 150_000, 9000)
    seconds = (
        row["intercept"]
        + row["total"] * (prefill + decodes)
        + row["prefill"] * prefill
        + row["decode"] * decodes
        + row["decode_context"] * context
        + row["prefill_context"] * past
    )
    work = Work(prefill, 1, past, 0, decodes, context)
    assert model.seconds(work) == pytest.approx(seconds, rel=1e-12)


def test_every_batch_in_the_box_of_the_a100_costs_something() -> None:
    model = read_calibration(NIYAMA).cost_model()
    prices = [
        model.femtoseconds(Work(tokens - decodes, 1, 0, 0, decodes, 0))
        for tokens in range(1, 2553, 7)
        for decodes in range(0, min(tokens, 256) + 1, 5)
    ]
    assert min(prices) > 10**12
    with pytest.raises(CalibrationError, match="takes more than 0 s"):
        model.femtoseconds(Work(decode_tokens=513))


def test_kv_memory_is_what_the_sources_say() -> None:
    slai, niyama = read_calibration(SLAI), read_calibration(NIYAMA)
    assert (slai.kv.num_blocks, slai.kv.block_size, slai.kv.block_bytes) == (14733, 16, 2 * 2**20)
    assert (niyama.kv.num_blocks, niyama.kv.block_bytes) == (a100_niyama.kv_blocks(), 2 * 2**20)
    # The decision traces were driven with 27,000 blocks; the estimate must not be far off.
    assert abs(niyama.kv.num_blocks / 27000 - 1) < 0.03
    assert niyama.max_model_len > 14_050


@pytest.mark.parametrize("path", [SLAI, NIYAMA])
def test_every_number_has_a_source_and_no_host_time_is_assumed(path: Path) -> None:
    calibration: Calibration = read_calibration(path)
    parts = [part.batch_time for part in calibration.batch_time.strata] or [calibration.batch_time]
    assert all(item.source for part in parts for item in part.coefficients)
    assert calibration.host_overhead.included_in_batch_times
    assert path.parent.name + "/" + path.stem == calibration.name


def test_reading_a_calibration_does_not_load_sklearn() -> None:
    code = (
        "import sys, llmsim.costs.calibration as c\n"
        f"c.read_calibration({str(SLAI)!r}).cost_model()\n"
        "assert not {'sklearn', 'torch', 'pandas'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SHIPPED.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_only_the_upper_regime_has_a_negative_coefficient() -> None:
    low, high = read_calibration(NIYAMA).batch_time.strata
    assert isinstance(low.batch_time.cost_model(), Linear)
    assert low.batch_time.value("per_decode_token") > 0 > high.batch_time.value("per_decode_token")
