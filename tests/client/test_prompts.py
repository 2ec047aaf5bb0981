"""What prompts are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmsim.client.prompts import Texts, TokenIds, Words, read_texts
from llmsim.errors import ConfigError


def test_ids_are_as_many_as_asked_within_their_range_and_differ_between_requests():
    source = TokenIds(1, 10, 19)
    drawn = source.make(0, 500)
    assert len(drawn) == 500
    assert set(drawn) == set(range(10, 20))
    assert source.make(1, 500) != drawn
    assert TokenIds(2, 10, 19).make(0, 500) != drawn


def test_a_prompt_depends_on_the_seed_and_its_request_alone():
    for source in (TokenIds(3, 0, 9), Words(3)):
        late_first = [source.make(i, 30) for i in (2, 1, 0)]
        assert late_first[::-1] == [source.make(i, 30) for i in range(3)]


@pytest.mark.parametrize(("per_word", "overhead"), [(1.0, 0), (1.3, 12), (4.2, 40)])
def test_fitted_words_have_the_asked_length(per_word, overhead):
    def tokens(words: int) -> int:
        return round(overhead + per_word * words)

    source = Words.fitted(0, (16, tokens(16)), (80, tokens(80)))
    for wanted in (100, 500, 3000):
        assert tokens(len(source.make(0, wanted).split())) == pytest.approx(wanted, rel=0.02, abs=per_word)


def test_words_are_at_least_one():
    assert len(Words(0, 1.0, 50.0).make(0, 3).split()) == 1


def test_counts_that_do_not_grow_with_the_words_fit_nothing():
    with pytest.raises(ValueError, match="80 words"):
        Words.fitted(0, (16, 0), (80, 0))


def test_texts_come_in_order_and_again(tmp_path):
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(["a", "b"]))
    source = Texts(read_texts(file))
    assert [source.make(i, 99) for i in range(3)] == ["a", "b", "a"]
    assert source.asked(99) == 0


def test_of_a_sharegpt_file_the_first_question_counts(tmp_path):
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    file = tmp_path / "sg.json"
    file.write_text(json.dumps([{"id": "1", "conversations": turns}, {"id": "2", "conversations": turns[2:]}]))
    assert read_texts(file) == ["q"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "must be a JSON list"), ("[]", "at least one"), ("[3]", "entry 0 must be a text"), ("[", "no JSON"),
     ('[{"conversations": 3}]', "entry 0"), ('[""]', "none of the 1 entries")],
)  # fmt: skip
def test_files_without_texts_are_errors_that_name_the_place(tmp_path, text, said):
    file = tmp_path / "texts.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_texts(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_texts(tmp_path / "none.json")


def test_ids_are_uniform():
    counts = np.bincount(TokenIds(0, 0, 3).make(0, 40_000), minlength=4)
    assert np.all(np.abs(counts - 10_000) < 500)
