"""The two streaming APIs: what a request says, and what a chunk of the answer means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmsim.client.spec import CHAT, BenchSpec

DONE = b"[DONE]"
Prompt = str | list[int]


class Features(NamedTuple):
    """What requests ask of a server beyond the plain API.

    force   `ignore_eos` and `min_tokens`: answers of exactly the asked length (vLLM, SGLang)
    usage   `stream_options.include_usage`: the server's own token counts at the end of the stream
    ids     prompts that are lists of token ids
    """

    force: bool
    usage: bool
    ids: bool


PLAIN = Features(force=False, usage=False, ids=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a stream.

    token   whether it counts as a token event: its time is a token's time
    finish  the finish_reason, '' for none
    prompt_tokens, output_tokens  of `usage`, None where the chunk has none
    error   the server's words if the event reports an error, '' for none
    """

    token: bool = False
    finish: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""


def body(spec: BenchSpec, features: Features, prompt: Prompt, output_tokens: int) -> bytes:
    """The request as JSON bytes; `output_tokens` is the length the answer shall have."""
    fields: dict[str, Any] = {"model": spec.model}
    if spec.api == CHAT:
        fields["messages"] = [{"role": "user", "content": prompt}]
    else:
        fields["prompt"] = prompt
    fields |= {"max_tokens": output_tokens, "stream": True}
    if features.usage:
        fields["stream_options"] = {"include_usage": True}
    if features.force:
        fields |= {"ignore_eos": True, "min_tokens": output_tokens}
    return json.dumps(fields | spec.extra_body, ensure_ascii=False, separators=(",", ":")).encode()


def read_chunk(data: bytes) -> Chunk:
    """What an event's data (not DONE) says. Raises ValueError if it is no chunk of an answer."""
    chunk = json.loads(data)
    if not isinstance(chunk, dict):
        raise ValueError(f"an event must be an object but is {type(chunk).__name__}")
    if error := chunk.get("error"):
        return Chunk(error=str(error.get("message", error)) if isinstance(error, dict) else str(error))
    usage, choices = chunk.get("usage") or {}, chunk.get("choices") or []
    if not isinstance(usage, dict) or not isinstance(choices, list):
        raise ValueError("usage must be an object and choices a list")
    counts = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not choices:
        return Chunk(False, "", *counts)
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("delta") or {}, dict):
        raise ValueError("a choice and its delta must be objects")
    finish = str(choice.get("finish_reason") or "")
    return Chunk(_is_token(choice, finish), finish, *counts)


def _count(usage: dict[str, Any], name: str) -> int | None:
    count = usage.get(name)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        raise ValueError(f"usage.{name} must be a whole number but is {count!r}")
    return count


def _is_token(choice: dict[str, Any], finish: str) -> bool:
    """Text is a token event, and so is an empty piece in mid-stream: a token that decodes to nothing yet.

    The message that only opens an answer (its role) is none, nor is an empty one that only says why it ended.
    """
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text")) or ("text" in choice and not finish)
    if any(delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls")):
        return True
    return "content" in delta and not finish and not delta.get("role")
