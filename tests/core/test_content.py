"""What a request's tokens are, and hash_ids of traces as such."""

from __future__ import annotations

import pytest

from llmsim.core.content import Content, from_hash_ids
from llmsim.core.prefix.cache import PrefixCache
from llmsim.core.request import Request
from llmsim.errors import ConfigError


def hit_tokens(earlier: Content, later: Content, prompt: int, block_size: int) -> int:
    """Tokens that a second prompt of the same length finds of the first."""
    kv = PrefixCache(4000, block_size)
    first, second = (Request(i, 0, prompt, 1, content=content) for i, content in enumerate((earlier, later)))
    kv.adopt(first, kv.match(first))
    kv.allocate(first, prompt)
    kv.fill(first, prompt)
    return kv.match(second).blocks * block_size


def test_a_hash_id_is_a_stream_that_is_cut_into_kv_blocks():
    one, other = from_hash_ids([7, 8, 9], 1300, 512), from_hash_ids([7, 8, 10], 1300, 512)
    assert one.prompt == ((7, 512), (8, 512), (9, 276))
    assert hit_tokens(one, other, 1300, 16) == 1024
    assert hit_tokens(one, one, 1300, 16) == 1296  # the partial last id is shared up to its length


def test_a_partial_last_id_is_shared_up_to_its_length_only():
    short, long = from_hash_ids([7], 100, 512), from_hash_ids([7], 400, 512)
    kv = PrefixCache(1000, 16)
    first, second = Request(0, 0, 100, 1, content=short), Request(1, 0, 400, 1, content=long)
    kv.adopt(first, kv.match(first))
    kv.allocate(first, 100)
    kv.fill(first, 100)
    assert kv.match(second).blocks == 6


def test_blocks_without_an_id_are_nobody_elses():
    content = from_hash_ids([1, 2], 40, 16)
    assert content.tokens == 32
    assert hit_tokens(content, content, 40, 8) == 32


@pytest.mark.parametrize(("ids", "tokens"), [([1, 2, 3], 32), ([1], 40), ([], 16), ([1, 2, 3, 4], 40)])
def test_a_number_of_ids_that_does_not_fit_the_prompt_is_an_error(ids, tokens):
    with pytest.raises(ConfigError, match=r"is the block size right\?"):
        from_hash_ids(ids, tokens, 16)


@pytest.mark.parametrize("block_size", [24, 48, 1000])
def test_block_sizes_that_do_not_divide_are_an_error(block_size):
    content = from_hash_ids([1], 512, 512)
    with pytest.raises(ConfigError, match="which KV blocks of"):
        hit_tokens(content, content, 512, block_size)


@pytest.mark.parametrize("block_size", [1, 16, 512, 1024])
def test_block_sizes_that_divide_either_way_are_taken(block_size):
    content = from_hash_ids([1, 2, 3], 1536, 512)
    assert hit_tokens(content, content, 1536, block_size) == 1535 // block_size * block_size


def test_lengths_must_agree():
    with pytest.raises(ConfigError, match="hold 20 tokens but the prompt has 10"):
        Request(0, 0, 10, 1, content=Content((("a", 20),)))
    with pytest.raises(ConfigError, match="at least 1 token"):
        Content((("a", 0),))


def test_the_same_tokens_after_other_tokens_are_other_blocks():
    assert hit_tokens(Content((("a", 32), ("b", 32))), Content((("c", 32), ("b", 32))), 64, 16) == 0
    assert hit_tokens(Content((("a", 32), ("b", 32))), Content((("a", 16), ("b", 48))), 64, 16) == 16
