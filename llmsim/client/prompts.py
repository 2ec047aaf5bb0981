"""What the requests say: random token ids or words of the workload's lengths, or the texts of a file.

A prompt depends on the run's prompt seed and the request's id alone, so the order of sending changes none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmsim.client.protocol import Prompt
from llmsim.errors import ConfigError

_COMMON = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out "
    "many then them these so some her would make like him into time has look two more write go see number no way "
    "could people my than first water been call who oil its now find long down day did get come made may part"
)
VOCABULARY = _COMMON.split()
"""Common short words: one token each, with the space before them, in most tokenizers."""

HUMAN = ("human", "user")
"""Who asks, in a ShareGPT file."""

ASIDE = 1 << 40
"""Prompts of probes and warm-up requests have ids from here on, so that they are none of the run's."""


class Prompts(Protocol):
    """Makes the prompt of a request."""

    @property
    def kind(self) -> str:
        """In words, for the record."""

    def make(self, id: int, tokens: int) -> Prompt:
        """The prompt of request `id`, which shall have `tokens` tokens."""

    def asked(self, tokens: int) -> int:
        """The length in tokens that the prompt of a request of `tokens` tokens is meant to have; 0: not known."""


def _stream(seed: int, id: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(id,)))


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Random token ids from `first` to `last`: exactly as many as asked, as nothing is added to them."""

    seed: int
    first: int
    last: int
    kind: str = "token ids"

    def make(self, id: int, tokens: int) -> list[int]:
        """As Prompts."""
        drawn: list[int] = _stream(self.seed, id).integers(self.first, self.last, tokens, endpoint=True).tolist()
        return drawn

    def asked(self, tokens: int) -> int:
        """As Prompts."""
        return tokens


@dataclass(frozen=True, slots=True)
class Words:
    """Random words: `tokens_per_word` tokens each on average, and `overhead` tokens (a template) besides.

    So a prompt is right on average only; the server's `usage` says how long each one was.
    """

    seed: int
    tokens_per_word: float = 1.0
    overhead: float = 0.0
    kind: str = "words"

    def make(self, id: int, tokens: int) -> str:
        """As Prompts."""
        count = max(1, round((tokens - self.overhead) / self.tokens_per_word))
        picks = _stream(self.seed, id).integers(0, len(VOCABULARY), count)
        return " ".join([VOCABULARY[pick] for pick in picks])

    def asked(self, tokens: int) -> int:
        """As Prompts."""
        return tokens

    @classmethod
    def fitted(cls, seed: int, few: tuple[int, int], many: tuple[int, int]) -> Words:
        """By two measured prompts, each (words, tokens). Raises ValueError unless more words were more tokens."""
        slope = (many[1] - few[1]) / (many[0] - few[0])
        if slope <= 0:
            raise ValueError(f"{many[0]} words were counted as {many[1]} tokens but {few[0]} as {few[1]}")
        return cls(seed, slope, few[1] - slope * few[0])


@dataclass(frozen=True, slots=True)
class Texts:
    """Given texts, in order, from the first again when all are used; their lengths are the server's to say."""

    texts: Sequence[str]
    kind: str = "texts of a file"

    def make(self, id: int, tokens: int) -> str:
        """As Prompts; `tokens` does not matter."""
        return self.texts[id % len(self.texts)]

    def asked(self, tokens: int) -> int:
        """As Prompts: 0."""
        return 0


def read_texts(path: str | Path) -> list[str]:
    """The texts of a JSON list, or the first question of each conversation of a ShareGPT file.

    Raises ConfigError, naming the file and the entry, if it is neither, or holds no text.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: must be a JSON list of texts, or a ShareGPT file, with at least one entry")
    texts = [_text(entry, f"{path}: entry {at}") for at, entry in enumerate(entries)]
    kept = [text for text in texts if text]
    if not kept:
        raise ConfigError(f"{path}: none of the {len(entries)} entries holds a text to send")
    return kept


def _text(entry: Any, where: str) -> str:
    """The entry's text; '' for a conversation in which nobody asks."""
    if isinstance(entry, str):
        return entry
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ConfigError(f"{where} must be a text, or an object with 'conversations', but is {str(entry)[:60]!r}")
    return next((str(turn.get("value", "")) for turn in turns if turn.get("from") in HUMAN), "")
