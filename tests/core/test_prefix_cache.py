"""PrefixCache against a pool that keeps every block, hash and reference for itself, as vLLM's BlockPool does."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.content import Content
from llmsim.core.decodes import DecodeSet
from llmsim.core.prefix.cache import PrefixCache
from llmsim.core.request import NEVER, Request
from tests.effort import examples

BLOCK = 4


@dataclass
class Pool:
    """One list entry a block. A hash is the tuple of all tokens up to the block's last one."""

    blocks: int
    unhashed_first: bool
    free: list[int] = field(default_factory=list)
    hashes: dict[int, tuple] = field(default_factory=dict)
    found: dict[tuple, list[int]] = field(default_factory=dict)
    holders: list[int] = field(default_factory=list)
    tables: dict[int, list[int]] = field(default_factory=dict)
    filled: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        self.free = list(range(self.blocks))
        self.holders = [0] * self.blocks

    def match(self, tokens):
        hit = []
        for at in range((len(tokens) - 1) // BLOCK):
            copies = self.found.get(tokens[: (at + 1) * BLOCK])
            if not copies:
                break
            hit.append(copies[0])
        return hit

    def admit(self, key, hit):
        for block in hit:
            if not self.holders[block]:
                self.free.remove(block)
            self.holders[block] += 1
        self.tables[key] = list(hit)
        self.filled[key] = len(hit)

    def take(self, key, tokens):
        table = self.tables[key]
        while len(table) * BLOCK < tokens:
            block = self.free.pop(0)
            if block in self.hashes:
                content = self.hashes.pop(block)
                self.found[content].remove(block)
            self.holders[block] = 1
            table.append(block)

    def fill(self, key, tokens):
        for at in range(self.filled[key], len(tokens) // BLOCK):
            content, block = tokens[: (at + 1) * BLOCK], self.tables[key][at]
            assert block not in self.hashes
            self.hashes[block] = content
            self.found.setdefault(content, []).append(block)
            self.filled[key] = at + 1

    def release(self, key):
        freed = []
        for block in reversed(self.tables.pop(key)):
            self.holders[block] -= 1
            if not self.holders[block]:
                freed.append(block)
        if self.unhashed_first:
            self.free = [b for b in freed if b not in self.hashes] + self.free
            freed = [b for b in freed if b in self.hashes]
        self.free += freed

    def queue(self, gone):
        """What free blocks hold; of a request without content that is `gone` nobody can ask for it."""
        held = (self.hashes.get(block) for block in self.free)
        return [None if tokens and tokens[0][0] in gone else tokens for tokens in held]


def tokens_of(request, length):
    """The sequence, token by token."""
    content = request.content or Content()
    tokens = [(stream, i) for stream, n in content.prompt for i in range(n)]
    named = content.output if content.tokens == request.prompt_tokens else None
    rest = length - len(tokens)
    return (*tokens, *(((request.id,) if named is None else named, i) for i in range(rest)))[:length]


def chain(branch, stop):
    tokens, at = [], stop
    while branch.parent is not None:
        tokens[:0] = [(branch.key[1], i) for i in range(at - branch.start)]
        branch, at = branch.parent, branch.start
    return tuple(tokens)


def queue_of(kv, gone):
    """What the free blocks hold, in the order in which they are reused."""
    kv._settle()
    found, extent = [], kv._queue.head
    while extent is not kv._queue._end:
        blocks = reversed(range(extent.first, extent.stop))
        held = [extent.branch and chain(extent.branch, (block + 1) * BLOCK) for block in blocks]
        found += [None if tokens and tokens[0][0] in gone else tokens for tokens in held]
        extent = extent.after
    return found


def by_rank(request):
    """Place in the batch."""
    return request.rank


class World:
    """The same life for both: formations of one or more iterations, admissions, chunks, preemptions and ends."""

    def __init__(self, random: Random, in_flight: int):
        self.random = random
        unhashed_first = random.random() < 0.5
        blocks = random.randint(8, 40)
        self.kv = PrefixCache(blocks, BLOCK, 0.0)
        self.pool = Pool(blocks, unhashed_first)
        self.lag = in_flight
        self.decodes = DecodeSet(BLOCK)
        self.kv.in_flight = in_flight
        self.kv.attach(self.decodes, unhashed_first=unhashed_first)
        self.prefilling, self.waiting = [], []
        self.made = 0
        self.gone = set()
        self.departing = []
        self.now = 0

    def content(self):
        pick = self.random
        if pick.random() < 0.25:
            return None, pick.randint(1, 20)
        segments = [(pick.choice("abc"), pick.choice([1, 3, 4, 8, 9])) for _ in range(pick.randint(1, 3))]
        tokens = sum(n for _, n in segments)
        return Content(tuple(segments), pick.choice([None, "x", "y"])), tokens + pick.choice([0, 0, 5])

    def all_free_blocks_agree(self):
        assert self.kv.free_blocks == len(self.pool.free)
        assert queue_of(self.kv, self.gone) == self.pool.queue(self.gone)

    def formation(self):
        """Decodes and chunks are served in order of admission, then come new ones; then the iterations run."""
        decodes, kv, pool, pick = self.decodes, self.kv, self.pool, self.random
        quiet = not self.prefilling and pick.random() < 0.5
        iterations = pick.randint(1, 9) if quiet else 1
        while decodes.blocks_needed() + (decodes.growth(1, iterations - 1) if iterations > 1 else 0) > kv.free_blocks:
            self.leave(max(decodes.members, key=by_rank), preempted=True)
        kv.take(decodes.blocks_needed() + (decodes.growth(1, iterations - 1) if iterations > 1 else 0))
        computed = {}
        for done in range(iterations):
            for request in sorted([*decodes.members, *self.prefilling], key=by_rank):
                if request not in decodes:
                    self.chunk(request, computed)
                    continue
                length = decodes.length(request) + done
                pool.take(request.id, length)
                pool.fill(request.id, tokens_of(request, length - self.lag))
        if iterations == 1:
            while self.waiting or pick.random() < 0.4:
                if not self.admit(computed):
                    break
        self.end_those_whose_results_are_in()
        decodes.advance(iterations)
        for request, tokens in computed.items():
            request.computed = tokens
            if tokens == request.prefill_tokens:
                self.prefilling.remove(request)
                request.generated += 1
                decodes.join(request)

    def chunk(self, request, computed):
        chunk = min(self.random.randint(1, 12), request.prefill_tokens - request.computed)
        until = request.computed + chunk
        if self.kv.blocks_for(until) - request.blocks > self.kv.free_blocks:
            return
        self.kv.allocate(request, until)
        self.kv.fill(request, until)
        self.pool.take(request.id, until)
        self.pool.fill(request.id, tokens_of(request, until))
        computed[request] = until

    def admit(self, computed):
        if not self.waiting:
            content, tokens = self.content()
            self.made += 1
            self.waiting.append(Request(self.made, 0, tokens, 1 << 40, content=content))
        request = self.waiting[0]
        hit, want = self.kv.match(request), self.pool.match(tokens_of(request, request.prefill_tokens))
        assert hit.blocks == len(want)
        assert hit.free == sum(not self.pool.holders[block] for block in want)
        if self.kv.blocks_for(request.prefill_tokens) - hit.blocks + hit.free > self.kv.free_blocks:
            if not self.decodes.size and not self.prefilling:
                self.waiting.pop(0)  # too long for ever
            return False
        self.waiting.pop(0)
        request.rank = self.made = self.made + 1
        self.kv.adopt(request, hit)
        self.pool.admit(request.id, want)
        assert self.kv.free_blocks == len(self.pool.free)
        request.computed = hit.blocks * BLOCK
        self.prefilling.append(request)
        self.chunk(request, computed)
        return True

    def leave(self, request, *, preempted):
        if request in self.decodes:
            self.decodes.leave(request)
            if not preempted:
                request.finish_ns = self.now
                if self.lag and self.random.random() < 0.8:  # else it is preempted, its last token in flight
                    self.departing.append(request)
                    return
        else:
            self.prefilling.remove(request)
        self.free(request)
        if preempted:
            self.waiting.insert(0, request)

    def end_those_whose_results_are_in(self):
        self.kv.in_flight = 0
        for request in sorted(self.departing, key=by_rank):
            self.pool.fill(request.id, tokens_of(request, request.length - 1))
            self.free(request)
        self.departing = []
        self.kv.in_flight = self.lag

    def free(self, request):
        if request.finish_ns != NEVER:
            self.gone.add((request.id,))
        self.kv.release(request)
        self.pool.release(request.id)
        request.computed, request.prefill_tokens = 0, request.length
        request.preemptions += 1

    def step(self):
        self.now += 1
        for request in sorted(self.decodes.members, key=by_rank):
            if self.random.random() < 0.1:
                self.leave(request, preempted=False)
        for request in [*self.decodes.members, *self.prefilling]:
            if self.random.random() < 0.05:
                self.leave(request, preempted=True)
        self.formation()


@settings(max_examples=examples(300), deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([0, 1]))
def test_every_block_is_where_vllm_has_it(random, in_flight):
    world = World(random, in_flight)
    for _ in range(random.randint(1, 60)):
        world.step()
        if random.random() < 0.5:
            world.all_free_blocks_agree()
    for request in [*world.decodes.members, *world.prefilling]:
        world.now += 1
        world.leave(request, preempted=request in world.prefilling)
    world.end_those_whose_results_are_in()
    world.all_free_blocks_agree()
    assert world.kv.used_blocks == 0
    assert not world.kv._growing
    world.kv.take(world.kv.num_blocks)
    world.kv._settle()
    assert not world.kv._root.branches
