"""YAML that is small and stands for much, or for what no run is made of, is refused at once and in few words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from llmsim.errors import ConfigError
from llmsim.spec.run_spec import apply_override, dump_run, load_runs, read_yaml
from llmsim.spec.yaml_text import MOST_BYTES, MOST_NODES, load_yaml

RUN = "calibration: h100/llama-3.1-8b\nworkload: {trace: sharegpt4}\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{below}'] * 10)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CASES = {
    BOMB: "aliases stand for 11,111 values",
    f"a: &a {'x' * 200_000}\nb: [{','.join(['*a'] * 50)}]": "aliases stand for 10,000,000 characters",
    "a: &a\n  b: *a": "a value holds itself",
    "a: " + "[" * 100 + "]" * 100: "nested deeper than 60 levels",
    "a: " + "[" * 100_000: "nested deeper than 60 levels",
    f"a: {'9' * 5000}": "a number of 5,000 digits",
    f"a: 0x{'f' * 5000}": "a number of 5,002 digits",
    f"[{'a,' * MOST_NODES}]": "more than 10,000 values",
    "a" * (MOST_BYTES + 1): "too long for YAML",
    "!!set {a, b}: 1": "!!set {a, b} is a set, which cannot be a key",
    "[a]: 1": r"[a] is a list, which cannot be a key",
    "{a: 1}: 1": "{a: 1} is a mapping, which cannot be a key",
    "a: !!set {b}": "!!set {b} is a set, no plain value",
    "a: !!binary aGk=": "is a binary, no plain value",
    "a: !!omap [b: 1]": "is a omap, no plain value",
    "a: 2024-01-01": "2024-01-01 is a timestamp, no plain value; quote it",
    "a: !!python/object/apply:os.system [x]": "python/object/apply:os.system, no plain value",
    "a: !mine 1": "is a mine, no plain value",
    "1: a\n0x1: b": "key 1 is given twice",
    "a: \x00": "is no YAML",
}


@pytest.mark.parametrize("text", CASES, ids=range(len(CASES)))
def test_what_is_too_much_or_not_plain_is_refused_at_once(text):
    began = time.process_time()
    with pytest.raises(ConfigError) as refused:
        load_yaml(text, "run.yaml")
    said = str(refused.value)
    assert said.startswith("run.yaml: ")
    assert CASES[text] in said
    assert len(said) < 600
    assert "\n" not in said
    assert time.process_time() - began < 5  # below a second on a machine with nothing else to do


def test_what_is_within_the_bounds_is_read_as_before():
    text = "base: &b {x: 1, y: [1.5, null, true, '2024-01-01']}\nz:\n  <<: *b\n  x: 2\nbig: 12345678901234567890123\n"
    assert load_yaml(text, "t") == yaml.safe_load(text)
    assert load_yaml("", "t") is None
    (run,) = load_runs(mapping=load_yaml(RUN, "t"))
    assert load_runs(mapping=load_yaml(dump_run(run), "t")) == [run]


def test_the_same_bounds_hold_for_files_overrides_and_policies(tmp_path: Path):
    (tmp_path / "run.yaml").write_text(BOMB)
    with pytest.raises(ConfigError, match=r"run.yaml: is no YAML: aliases stand for"):
        read_yaml(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match=r"--set engine.num_blocks=9+: .*a number of 5,000 digits"):
        apply_override({}, f"engine.num_blocks={'9' * 5000}")
    with pytest.raises(ConfigError, match="at most"):
        read_yaml("/dev/zero")


@pytest.mark.parametrize("where", ["scheduler: {chunk_size: 1}", "cluster: {router: {a: 1}}"])
def test_a_policy_without_a_name_says_which_there_are(where):
    with pytest.raises(ConfigError, match=r"needs a name but got .*, one of .*(sarathi|round_robin)"):
        load_runs(mapping=load_yaml(RUN + where, "t"))


def test_a_value_of_megabytes_is_told_in_few_words():
    with pytest.raises(ConfigError) as refused:
        load_runs(mapping=load_yaml(RUN + f"seed: {'x' * 900_000}", "t"))
    assert len(str(refused.value)) < 500
