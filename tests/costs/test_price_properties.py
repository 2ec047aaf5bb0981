"""Every shipped calibration of kernels: more work is never cheaper, and a little more is little dearer.

Exact to 2 ns, as tables are read in whole femtoseconds a token. Known steps: sizes to which small batches are padded.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from llmsim.core.batch import Work
from llmsim.costs.calibration import read_calibration

FOLDER = Path(__file__).parents[2] / "calibrations"
NS_2 = 2_000_000
SIZES = [1, 2, 3, 8, 16, 17, 33, 64, 65, 100, 127, 128, 129, 200, 256, 257, 300, 376, 440, 441, 512, 513, 600, 768,
         1000, 1024, 1025, 1500, 2048, 2049, 3000, 4096, 4097, 8192, 8193, 16384, 30000]  # fmt: skip
PASTS = [0, 1, 2, 16, 17, 64, 128, 500, 1024, 2048, 4096, 8192, 8193, 16384, 32768, 65536, 131072]
DECODES = [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128, 129, 256, 257, 512, 513, 1024, 1025, 2000]
CONTEXTS = [1, 2, 15, 16, 17, 64, 65, 128, 129, 500, 512, 1024, 1025, 3000, 8192, 8193, 16384]
LONG = [*CONTEXTS, 20000, 65536, 131072, 200000]
BUDGETS = [16, 64, 128, 200, 256, 512, 1000, 1024, 2048, 4096, 8192]

CALIBRATIONS = {
    held.name: held
    for held in map(read_calibration, sorted(FOLDER.glob("*/*.json")))
    if held.batch_time.form == "tabulated"
}
every = pytest.mark.parametrize("name", CALIBRATIONS)


def chunk(tokens: int, past: int, decodes: int = 0, context: int = 0) -> Work:
    """One chunk, beside decodes of equal length."""
    pairs = tokens * past + tokens * (tokens + 1) // 2
    return Work(tokens, 1, past, pairs, decodes, decodes * context, context)


def alone(decodes: int, context: int) -> Work:
    """Decodes of equal length."""
    return Work(decode_tokens=decodes, decode_context=decodes * context, decode_longest=context)


def ladders() -> list[tuple[str, list[Work]]]:
    """Batches that grow in one quantity."""
    held = [(f"chunk on {past}", [chunk(size, past) for size in SIZES]) for past in PASTS]
    held += [(f"chunk on {past} beside", [chunk(size, past, 32, 1024) for size in SIZES]) for past in PASTS]
    held += [(f"past of {size}", [chunk(size, past) for past in PASTS]) for size in SIZES]
    held += [(f"decodes of {at}", [alone(n, at) for n in DECODES]) for at in LONG]
    held += [(f"decodes of {at} beside", [chunk(512, 0, n, at) for n in DECODES]) for at in LONG]
    held += [(f"context of {n}", [alone(n, at) for at in LONG]) for n in DECODES]
    held += [(f"context of {n} beside", [chunk(128, 0, n, at) for at in LONG]) for n in DECODES]
    held += [(f"prompts of {size}", [prompts(n, size) for n in (1, 2, 3, 4, 8, 16)]) for size in (16, 128, 512, 2048)]
    return held


def prompts(count: int, tokens: int) -> Work:
    """Whole prompts in one batch."""
    return Work(count * tokens, count, 0, count * (tokens * (tokens + 1) // 2))


@every
def test_more_is_never_cheaper(name: str) -> None:
    price = CALIBRATIONS[name].cost_model().femtoseconds
    for what, works in ladders():
        for less, more in pairwise(works):
            assert price(more) >= price(less) - NS_2, (what, less, more)


@every
def test_a_token_more_is_no_jump(name: str) -> None:
    """5 %, or half as much again as the share of what is one more."""
    held = CALIBRATIONS[name]
    price, kernels = held.cost_model().femtoseconds, held.batch_time.kernels
    assert kernels is not None
    steps = set(kernels.padding)
    pairs = [(chunk(n, past), chunk(n + 1, past), n) for n in SIZES for past in PASTS if n not in steps]
    pairs += [(chunk(n, past), chunk(n, past + 1), n + past) for n in SIZES for past in PASTS]
    pairs += [(alone(n, at), alone(n + 1, at), n) for n in DECODES for at in LONG if n not in steps]
    pairs += [(chunk(600, 0, n, at), chunk(600, 0, n + 1, at), n) for n in DECODES for at in CONTEXTS]
    pairs += [(alone(n, at), alone(n, at + 1), at) for n in DECODES for at in LONG]
    for less, more, size in pairs:
        assert price(more) <= price(less) * (1 + max(0.05, 1.5 / size)), (less, more)


@every
def test_a_chunk_costs_the_reading_of_its_keys_and_chunks_the_whole_prompt(name: str) -> None:
    price = CALIBRATIONS[name].cost_model().femtoseconds
    for past in PASTS[1:]:
        assert all(price(chunk(size, past)) >= price(alone(1, past + size)) - NS_2 for size in SIZES[:20]), past
    for length in (128, 512, 1000, 2048, 4096, 8192, 8193, 8320, 12000, 32768):
        for budget in BUDGETS:
            assert in_chunks(price, length, budget) >= price(chunk(length, 0)) - NS_2, (length, budget)


@every
def test_a_token_more_in_the_prompt_costs_no_more_than_an_iteration_of_one(name: str) -> None:
    """8,192, 8,193 and 8,320 tokens at 2,048 an iteration: each a little later than the one before."""
    price = CALIBRATIONS[name].cost_model().femtoseconds
    even, one_more, a_tile_more = (in_chunks(price, length, 2048) for length in (8192, 8193, 8320))
    assert even < one_more <= a_tile_more
    assert a_tile_more - even == price(chunk(128, 8192))
    assert a_tile_more < 1.1 * even


def in_chunks(price, length: int, budget: int) -> int:  # type: ignore[no-untyped-def]
    """Femtoseconds of a prompt in chunks of `budget` tokens."""
    starts = range(0, length, budget)
    return sum(price(chunk(min(budget, length - past), past)) for past in starts)
