"""Cases: the batches that a profile times, in the grammar of vLLM's `vllm bench forward`.

    NAME=[N*]Q[@K][c]        decode=32*1@8192     chunk=512@2048c     mix=512@2048c,32*1@1024,3*1@77

N sequences (default 1) of Q query tokens and K keys, the queries among them (default Q); c marks a chunk of a prompt;
a comma adds sequences to the same batch. One query with more keys and no c is a decode, everything else a piece of
prompt after K - Q tokens that are in the KV cache already.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, NoReturn

from llmsim.core.batch import Work
from llmsim.errors import ConfigError

EXAMPLE = "mix=512@2048c,32*1@1024"
MAX_SEQUENCES = 65536
"""More sequences than this in a case are a slip of the pen, and would be a long time in unpacking."""

_NAME = re.compile(r"[A-Za-z0-9_.:/+-]+")
_TERM = re.compile(r"(?:(?P<count>[0-9]{1,9})\*)?(?P<queries>[0-9]{1,9})(?:@(?P<keys>[0-9]{1,9}))?(?P<chunked>c?)")


class Sequence(NamedTuple):
    """One sequence of a batch: query tokens, keys that they see (queries included), whether marked as a chunk."""

    queries: int
    keys: int
    chunked: bool = False

    @property
    def past(self) -> int:
        """Tokens whose KV is in the cache before the batch."""
        return self.keys - self.queries

    @property
    def decode(self) -> bool:
        """Whether it decodes: one query after others, not marked as a chunk."""
        return self.queries == 1 and self.keys > 1 and not self.chunked

    def __str__(self) -> str:
        keys = f"@{self.keys}" if self.keys != self.queries else ""
        return f"{self.queries}{keys}{'c' if self.chunked else ''}"


@dataclass(frozen=True, slots=True)
class Case:
    """A batch with a name. `str` writes the grammar, `parse_case` reads it back to an equal case.

    Raises ConfigError for a name that the grammar cannot hold, no sequence, a sequence without a query token, or one
    with fewer keys than queries.
    """

    name: str
    sequences: tuple[Sequence, ...]

    def __post_init__(self) -> None:
        """Check the rules; `parse_case` does so before, with the whole text in the message."""
        _check(self.name, self.name, self.sequences)

    def __str__(self) -> str:
        runs = ((str(sequence), sum(1 for _ in run)) for sequence, run in groupby(self.sequences))
        return f"{self.name}={','.join(f'{count}*{text}' if count > 1 else text for text, count in runs)}"

    @property
    def stratum(self) -> str:
        """What kind of case it is, by its name: the part before the first '-', as in `decode-017`."""
        return self.name.split("-", 1)[0]

    @property
    def max_keys(self) -> int:
        """Keys of its longest sequence, which the model's length limit must hold."""
        return max(sequence.keys for sequence in self.sequences)

    @property
    def tokens(self) -> int:
        """Query tokens of the batch."""
        return sum(sequence.queries for sequence in self.sequences)

    def blocks(self, block_size: int) -> int:
        """KV blocks of `block_size` tokens that its keys fill."""
        return sum(-(-sequence.keys // block_size) for sequence in self.sequences)

    def work(self) -> Work:
        """The sums that price the batch."""
        prompts = [sequence for sequence in self.sequences if not sequence.decode]
        decodes = [sequence for sequence in self.sequences if sequence.decode]
        return Work(
            prefill_tokens=sum(s.queries for s in prompts),
            prefill_seqs=len(prompts),
            prefill_context=sum(s.past for s in prompts),
            prefill_attention=sum(s.queries * s.past + s.queries * (s.queries + 1) // 2 for s in prompts),
            decode_tokens=len(decodes),
            decode_context=sum(s.keys for s in decodes),
        )


def parse_case(text: str) -> Case:
    """The case that `text` describes; ConfigError names the text, what is wrong with it, and an example."""
    name, equals, terms = text.strip().partition("=")
    if not equals:
        _fail(text, "there is no '=' after a name")
    sequences: list[Sequence] = []
    for term in terms.split(","):
        read = _TERM.fullmatch(term.strip())
        if read is None:
            _fail(text, f"{term.strip()!r} is not of the form [N*]Q[@K][c]")
        count, queries = int(read["count"] or 1), int(read["queries"])
        if not 1 <= count <= MAX_SEQUENCES - len(sequences):
            _fail(text, f"{term.strip()!r}: a case has 1 to {MAX_SEQUENCES:,} sequences")
        sequences += [Sequence(queries, int(read["keys"] or queries), bool(read["chunked"]))] * count
    _check(text, name.strip(), sequences)
    return Case(name.strip(), tuple(sequences))


def _check(text: str, name: str, sequences: Collection[Sequence]) -> None:
    """Raise ConfigError about `text` if it breaks a rule that the grammar alone does not state."""
    if not _NAME.fullmatch(name):
        _fail(text, "the name before '=' must be letters, digits and _ . : / + - only")
    if not 1 <= len(sequences) <= MAX_SEQUENCES:
        _fail(text, f"a case has 1 to {MAX_SEQUENCES:,} sequences but this has {len(sequences):,}")
    for sequence in sequences:
        if sequence.queries < 1:
            _fail(text, f"a sequence needs at least 1 query token but got {sequence}")
        if sequence.keys < sequence.queries:
            _fail(
                text,
                f"{sequence} has fewer keys ({sequence.keys}) than queries ({sequence.queries}); the number after '@'"
                " counts both",
            )


def _fail(text: str, problem: str) -> NoReturn:
    shown = text.strip() if len(text) <= 100 else f"{text[:97]}..."
    raise ConfigError(f"case {shown!r}: {problem}. A case looks like {EXAMPLE}")
