"""A calibration file says everything about its numbers, or it is refused with file, key, value and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmsim import data
from llmsim.core.batch import Work
from llmsim.costs import calibration as library
from llmsim.costs.box import StrictRange
from llmsim.costs.calibration import load_calibration, read_calibration, save
from llmsim.costs.stratified import Tiled
from llmsim.errors import CalibrationError

SHIPPED = Path(__file__).parents[2] / "calibrations"
NAMES = ["a100/llama-3-8b", "rtx-6000-ada/mistral-7b"]
STRATIFIED = SHIPPED / "a100/llama-3-8b.json"
HINGE = Path(__file__).with_name("hinge.json")


def changed(tmp_path: Path, source: Path, keys: str, value: Any) -> Path:
    """A copy of `source` with one key set, or removed where `value` is `...`."""
    held = json.loads(source.read_text(encoding="utf-8"))
    *parents, last = [int(key) if key.isdigit() else key for key in keys.split("/")]
    inner = held
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(held), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", [HINGE, STRATIFIED])
def test_saving_what_was_read_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    calibration = read_calibration(path)
    copy = tmp_path / "new" / "copy.json"
    save(calibration, copy)
    assert copy.read_bytes() == path.read_bytes()
    assert read_calibration(copy) == calibration


FLOOR = "batch_time/coefficients/floor"
STRATUM = "batch_time/strata/1"
BAD = [
    (HINGE, "device", ..., "device is missing"),
    (HINGE, "device", "", 'device must be a text but got ""'),
    (HINGE, "modle", "x", "modle is not a key of this object. Did you mean 'model'?"),
    (HINGE, "schema_version", 2, "schema_version is 2, but this llmsim reads version 1"),
    (HINGE, "schema_version", True, "schema_version must be a whole number of at least 1 but got true"),
    (HINGE, "batch_time", [], "batch_time must be an object but got []"),
    (HINGE, "batch_time/form", "hing", "batch_time.form is 'hing', which is no form. Did you mean 'hinge'?"),
    (HINGE, "batch_time/strata", [], "batch_time.strata is not a key of this object"),
    (HINGE, "batch_time/tile_tokens", 128, "batch_time.tile_tokens is not a key of this object"),
    (HINGE, FLOOR, ..., "coefficients.floor is missing; form 'hinge' needs it"),
    (HINGE, FLOOR + "/value", "0.02", 'coefficients.floor.value must be a finite number but got "0.02"'),
    (HINGE, FLOOR + "/value", 10**400, "coefficients.floor.value must be a finite number"),
    (
        HINGE,
        FLOOR + "/value",
        -0.02,
        "coefficients cannot be used: floor must be at least 0 seconds but got -0.02",
    ),
    (HINGE, FLOOR + "/unit", "ms", "coefficients.floor.unit must be 's' but got 'ms'"),
    (HINGE, FLOOR + "/source", ..., "coefficients.floor.source is missing"),
    (HINGE, FLOOR + "/note", "x", "coefficients.floor.note is not a key"),
    (
        HINGE,
        "batch_time/coefficients/per_tokens",
        {},
        "is no coefficient of form 'hinge'. Did you mean 'per_token'?",
    ),
    (HINGE, "box/ranges/tokens/max", 0, "box.ranges.tokens.max must be at least min, 1, but got 0"),
    (
        HINGE,
        "box/ranges/tokens/min",
        -1,
        "box.ranges.tokens.min must be a whole number of at least 0 but got -1",
    ),
    (HINGE, "box/ranges/batch", {"min": 1, "max": 2}, "box.ranges.batch cannot be bounded; allowed: tokens,"),
    (HINGE, "box/source", ..., "box.source is missing"),
    (
        HINGE,
        "errors/in_sample/mape_pct",
        -1,
        "errors.in_sample.mape_pct must be a finite number of at least 0",
    ),
    (HINGE, "errors/note", None, "errors.note must be a text but got null"),
    (HINGE, "host_overhead/seconds", 1e-3, "must be 0 where batch times include it but got 0.001"),
    (HINGE, "host_overhead/included_in_batch_times", False, "measure it or give it"),
    (HINGE, "host_overhead/included_in_batch_times", 1, "must be true or false but got 1"),
    (HINGE, "kv/num_blocks", 0, "kv.num_blocks must be a whole number of at least 1 but got 0"),
    (HINGE, "kv/num_blocks", 14733.0, "kv.num_blocks must be a whole number of at least 1 but got 14733.0"),
    (HINGE, "limit/max_model_len", ..., "limit.max_model_len is missing"),
    (HINGE, "provenance/date", "autumn", "provenance.date must be a date like 2026-01-31 but got 'autumn'"),
    (HINGE, "provenance/licence", ..., "provenance.licence is missing"),
    (HINGE, "provenance/notes", "one", 'provenance.notes must be a list but got "one"'),
    (HINGE, "provenance/notes", [1], "provenance.notes must hold texts only but holds 1"),
    (STRATIFIED, "batch_time/strata", [], "batch_time.strata must not be an empty list"),
    (STRATIFIED, STRATUM + "/max_tokens", 4096, "max_tokens of the last of the strata must be None"),
    (
        STRATIFIED,
        "batch_time/strata/0/max_tokens",
        None,
        "max_tokens of the strata must be positive and rise",
    ),
    (STRATIFIED, STRATUM + "/form", "stratified", "batch_time.strata[1].form must be a plain form"),
    (
        STRATIFIED,
        STRATUM + "/coefficients/constant/unit",
        "us",
        "strata[1].coefficients.constant.unit must be 's'",
    ),
    (
        STRATIFIED,
        "box/ranges/decode_tokens",
        ...,
        "box.ranges.decode_tokens is missing; a negative coefficient",
    ),
    (
        STRATIFIED,
        "box/ranges/decode_tokens/max",
        600,
        "batch_time is not positive over the box: Linear prices",
    ),
]


@pytest.mark.parametrize(
    ("source", "keys", "value", "message"), BAD, ids=[f"{row[1]}-{index}" for index, row in enumerate(BAD)]
)
def test_a_bad_key_is_named_with_file_and_value(
    source: Path, keys: str, value: Any, message: str, tmp_path: Path
) -> None:
    path = changed(tmp_path, source, keys, value)
    with pytest.raises(CalibrationError) as error:
        read_calibration(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"[]", "the file's content must be an object but got []"),
        (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        (b'{"a": NaN}', "NaN is not a number in JSON"),
        (b"\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_json_object_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CalibrationError) as error:
        read_calibration(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_host_overhead_is_paid_once_per_iteration_on_both_sides_of_the_floor(tmp_path: Path) -> None:
    host = {"seconds": 0.003, "included_in_batch_times": False, "source": "test"}
    slower = read_calibration(changed(tmp_path, HINGE, "host_overhead", host))
    plain = read_calibration(HINGE)
    for work in (Work(decode_tokens=1, decode_context=10), Work(1024, 1, 0, 524_800)):
        extra = slower.cost_model().femtoseconds(work) - plain.cost_model().femtoseconds(work)
        assert extra == 3 * 10**12
    assert slower.host_overhead_s == 0.003


def test_a_tiled_file_makes_a_tiled_model(tmp_path: Path) -> None:
    coefficient = {"value": 0.01, "unit": "s/tile", "source": "test"}
    tiled = {"form": "tiled", "tile_tokens": 64, "coefficients": {"per_tile": coefficient}}
    path = changed(tmp_path, HINGE, "batch_time", tiled)
    model = read_calibration(path).cost_model()
    assert isinstance(model, Tiled)
    assert model.seconds(Work(65, 1)) == 0.02
    assert json.loads(read_calibration(path).to_json())["batch_time"] == tiled


def checkout(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """Make the package lie in `root`; its folder."""
    package = root / "llmsim"
    package.mkdir(parents=True)
    monkeypatch.setattr(data, "PACKAGE", package)
    return package


def test_shipped_calibrations_are_found_by_name_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = checkout(monkeypatch, tmp_path)
    for name in NAMES:
        save(read_calibration(SHIPPED / f"{name}.json"), tmp_path / "calibrations" / f"{name}.json")
    assert library.list_calibrations() == []
    (package.parent / "pyproject.toml").touch()
    assert library.list_calibrations() == NAMES
    assert [load_calibration(name).name for name in NAMES] == NAMES


def test_shipped_calibrations_are_found_by_name_in_a_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = checkout(monkeypatch, tmp_path)
    save(read_calibration(HINGE), package / "_data" / "calibrations" / f"{NAMES[1]}.json")
    assert library.list_calibrations() == [NAMES[1]]
    assert load_calibration(NAMES[1]) == read_calibration(HINGE)


def test_an_unknown_name_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = checkout(monkeypatch, tmp_path)
    save(read_calibration(HINGE), package / "_data" / "calibrations" / f"{NAMES[1]}.json")
    with pytest.raises(CalibrationError, match=r"Did you mean 'rtx-6000-ada/mistral-7b'\?"):
        load_calibration("RTX-6000-Ada/mistral7b")
    with pytest.raises(CalibrationError, match=r"none of the GPU 'rtx-6000', but of rtx-6000-ada\."):
        load_calibration("rtx-6000/mistral-7b")


def test_a_file_under_another_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = checkout(monkeypatch, tmp_path)
    save(read_calibration(HINGE), package / "_data" / "calibrations" / "h200" / "mistral-7b.json")
    with pytest.raises(CalibrationError, match="lies where 'h200/mistral-7b' belongs"):
        load_calibration("h200/mistral-7b")


def test_strict_range_wraps_the_model() -> None:
    model = load_calibration(HINGE).cost_model(strict_range=True)
    assert isinstance(model, StrictRange)
    with pytest.raises(CalibrationError, match=r"sequences=2 is outside .* for rtx-6000-ada/mistral-7b"):
        model.seconds(Work(decode_tokens=2, decode_context=4096))
