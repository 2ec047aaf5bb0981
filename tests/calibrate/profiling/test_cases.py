"""The grammar of cases: what is written is read back, and what is wrong is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.calibrate.profiling.cases import Case, Sequence, parse_case
from llmsim.errors import ConfigError

NAMES = st.from_regex(r"[A-Za-z0-9_.:/+-]{1,12}", fullmatch=True)
SEQUENCES = st.builds(
    lambda queries, past, chunked: Sequence(queries, queries + past, chunked),
    st.integers(1, 9000),
    st.one_of(st.just(0), st.integers(1, 40000)),
    st.booleans(),
)
CASES = st.builds(lambda name, held: Case(name, tuple(held)), NAMES, st.lists(SEQUENCES, min_size=1, max_size=12))


@given(CASES)
def test_what_is_written_is_read_back(case):
    assert parse_case(str(case)) == case


@given(CASES, st.integers(2, 5))
def test_runs_of_equal_sequences_are_written_once(case, times):
    repeated = Case(case.name, tuple(sequence for sequence in case.sequences[:1] for _ in range(times)))
    assert str(repeated) == f"{case.name}={times}*{case.sequences[0]}"
    assert parse_case(str(repeated)) == repeated


@pytest.mark.parametrize(
    "text", ["decode=32*1@8192", "chunk=8192@40960c", "mix=512@2048c,32*1@1024,3*1@77", "mix=8192,32*1@8192", "p=7c"]
)
def test_the_text_of_the_grammar_is_kept(text):
    assert str(parse_case(text)) == text


def test_one_query_after_others_is_a_decode_unless_marked_as_a_chunk():
    work = parse_case("a=1@9,2*1@5,1@7c,1,4@6").work()
    assert (work.decode_tokens, work.decode_context) == (3, 9 + 5 + 5)
    assert (work.prefill_seqs, work.prefill_tokens, work.prefill_context) == (3, 6, 6 + 0 + 2)
    assert work.prefill_attention == (6 + 1) + 1 + (4 * 2 + 10)


@given(CASES)
def test_work_counts_every_query_and_every_pair_once(case):
    work = case.work()
    assert work.tokens == case.tokens
    assert work.sequences == len(case.sequences)
    pairs = sum(s.past + i for s in case.sequences[:3] if not s.decode for i in range(1, s.queries + 1))
    assert Case("x", case.sequences[:3]).work().prefill_attention == pairs


def test_blocks_are_whole_and_a_sequence_shares_none():
    assert parse_case("a=16,1@17,1@16").blocks(16) == 1 + 2 + 1
    assert parse_case("a=16,1@17,1@16").max_keys == 17


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("512@2048", "no '=' after a name"),
        ("=1", "the name before '='"),
        ("a b=1", "the name before '='"),
        ("a=", "'' is not of the form"),
        ("a=1,,2", "'' is not of the form"),
        ("a=5@", "'5@' is not of the form"),
        ("a=-3", "'-3' is not of the form"),
        ("a=0", "at least 1 query token"),
        ("a=5@3", "fewer keys (3) than queries (5)"),
        ("a=0*5", "1 to 65,536 sequences"),
        ("a=65537*1", "1 to 65,536 sequences"),
        ("a=" + "9" * 5000, "not of the form"),
    ],
)
def test_what_is_wrong_is_named_with_an_example(text, problem):
    with pytest.raises(ConfigError) as caught:
        parse_case(text)
    message = str(caught.value)
    assert problem in message
    assert text[:50] in message
    assert "mix=512@2048c" in message


def test_a_case_built_in_code_is_checked_too():
    with pytest.raises(ConfigError, match="fewer keys"):
        Case("a", (Sequence(5, 3),))
    with pytest.raises(ConfigError, match="1 to 65,536"):
        Case("a", ())
