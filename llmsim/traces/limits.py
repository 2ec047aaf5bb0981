"""What happens to rows that cannot be used and to requests that a model's limit does not admit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError

ON_BAD = ("error", "drop")
"""What may happen to rows that cannot be used."""
ON_LONG = ("error", "drop", "clip")
"""What may happen to requests over the model's limit: 'error' stops at prompts alone, and leaves it to the engine what
becomes of the others; 'drop' and 'clip' look at prompt and output together."""


@dataclass(frozen=True, slots=True)
class Clipped:
    """Lengths under a limit (int64, shape (requests,)) and which of them were changed."""

    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    changed: NDArray[np.bool_]


def over_limit(
    prompt: NDArray[np.int64], output: NDArray[np.int64], limit: int | NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Which requests are over the limit: `prompt_too_long`, or `total_too_long` where the prompt alone is not."""
    long_prompt = prompt > limit
    return {"prompt_too_long": long_prompt, "total_too_long": ~long_prompt & (prompt + output > limit)}


def check_limit(limit: int | None, on_long: str) -> None:
    """ConfigError for an unknown `on_long` or a limit below 2 (one prompt and one output token)."""
    if on_long not in ON_LONG:
        raise ConfigError(f"on_long must be one of {', '.join(ON_LONG)} but got {on_long!r}")
    if limit is not None and limit < 2:
        raise ConfigError(f"the limit on tokens of a request must be at least 2 but got {limit}")


def clip_lengths(prompt: NDArray[np.int64], output: NDArray[np.int64], limit: int | NDArray[np.int64]) -> Clipped:
    """Scale prompt and output down in proportion so that their sum is at most `limit` tokens (one number, or one a
    request), at least 1 each.

    As the Sarathi and SLAI studies do (trace_request_length_generator.py): of the excess each side loses its
    share, rounded up, in floats; so sums may end one below the limit.
    """
    total = np.maximum(prompt + output, 1)
    excess = np.maximum(total - limit, 0)
    shorter_prompt = np.maximum(prompt - np.ceil(excess * (prompt / total)).astype(np.int64), 1)
    shorter_output = np.maximum(output - np.ceil(excess * (output / total)).astype(np.int64), 1)
    changed = excess > 0
    return Clipped(
        prompt_tokens=np.where(changed, shorter_prompt, prompt),
        output_tokens=np.where(changed, shorter_output, output),
        changed=changed,
    )
