"""What llmsim raises.

::

    LlmsimError
     +-- ConfigError          a run description, option or name that cannot be used
     +-- TraceError           a workload file or row that cannot be used
     +-- CalibrationError     a calibration that cannot be read, or is asked outside what it was measured on
     +-- CapacityError        a request or model that cannot fit the memory it is given
     +-- SchedulerError       a policy broke a rule of the engine (over-commit, a batch it may not form)
     +-- StalledError         requests are left that no further event could serve
     +-- EndpointError        a server that cannot be reached, or refuses what is asked of it
     +-- SweepError           a sweep that stopped, or cannot be merged: points of it are missing
     +-- SaveError            results that could not be written: a full disk, a folder that may not be written to

Messages say what is wrong, what was given, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Any


class LlmsimError(Exception):
    """Base of every error that llmsim raises on purpose."""


class ConfigError(LlmsimError):
    """A run description, option or name that cannot be used."""


class TraceError(LlmsimError):
    """A workload file or row that cannot be used: names file, row, column, value and remedy."""


class CalibrationError(LlmsimError):
    """A calibration that cannot be read, or is asked for a batch outside what was measured."""


class CapacityError(LlmsimError):
    """A request or model that cannot fit the memory it is given."""


class SchedulerError(LlmsimError):
    """A policy broke a rule of the engine."""


class StalledError(LlmsimError):
    """Requests are left that no further event could serve."""

    @classmethod
    def livelock(cls, policy: object, preemptions: int, request: int, blocks: int) -> StalledError:
        """The policy preempts and preempts, last the request of that id, and nobody finishes."""
        return cls(
            f"{preemptions} preemptions without a request finishing, the last of request {request}: "
            f"{type(policy).__name__} goes round in circles on {blocks} KV blocks; raise engine.num_blocks, or admit "
            "fewer requests (max_num_seqs)"
        )


class EndpointError(LlmsimError):
    """A server that cannot be reached, or refuses what is asked of it."""


class SweepError(LlmsimError):
    """A sweep that stopped before its end, or cannot be merged; what is done is kept."""


class SaveError(LlmsimError):
    """Results that could not be written. `result` is what was to be saved, finished, where there is one in memory."""

    result: Any = None


def place(file: str, line: int) -> str:
    """`file.py:12`, the path as seen from the working directory if it lies there."""
    here = os.getcwd() + os.sep
    return f"{file.removeprefix(here)}:{line}"


PART = 2
"""A word of more letters is looked for inside the known ones."""
MOST_NAMES = 20
"""More than these do not help who mistyped one."""

LIMITS = "docs/limits.md says what that means for your numbers"
_MOE = "a mixture of experts is not modelled"
NOT_MODELLED = {
    r"session|multi ?turn": "sessions (turns that wait for answers) are not modelled",
    r"deepseek(?!.*distill)|kimi|\bmla\b": "a mixture of experts, or latent attention (MLA), is not modelled",
    r"mixtral|\bmoe|moe\b|experts?\b|gpt ?oss|dbrx|grok|jamba|minimax|arctic|eplb|\d+x\d+b|\ba\d+b\b": _MOE,
    r"llama ?4(?!\d)|glm ?4 ?[567]|qwen3? ?next": _MOE,
    r"fp8|fp4|int8|int4|mxfp|\bw\d+a\d+|awq|gptq|gguf|bnb|bitsandbytes|quanti[sz]|dtype":
        "quantisation is not modelled, only bf16",
    r"specul|eagle|medusa|\bdraft|\bngram|num lookahead|\bmtp": "speculative decoding is not modelled",
    r"\b[q]?lora|adapter": "LoRA is not modelled",
    r"multi ?modal|\bvision|\bimages?\b|\baudio|\bvideo|llava|pixtral|\bvl\b|\bmm\b":
        "multi-modal input is not modelled",
    r"disagg|kv (connector|transfer|role)|(prefill|decode) (replica|worker|instance|pool)":
        "disaggregated prefill is not modelled",
    r"pipeline|\bpp ?size|\bpp\d": "pipeline parallelism is not modelled",
    r"auto ?scal|(min|max) replicas|scale (up|down|out|in)\b|keda":
        "autoscaling that reacts is not modelled, schedules are",
    r"failures?\b|crash|mtbf|mttr|retr(y|ies)\b": "failures and retries are not modelled",
    r"\bswap|offload": "swapping KV to the host is not modelled; preempted requests are computed again",
    r"sglang|tensorrt|trt ?llm|lmdeploy|\btgi\b|dynamo|llama ?cpp|ollama|deepspeed":
        "this engine is not modelled, vLLM is",
}  # fmt: skip
"""What users ask for by name and llmsim has not: a pattern of the word (lower case, blanks for punctuation), and the
answer."""


def not_modelled(word: str) -> str:
    """A sentence if the word stands for what llmsim does not model, else nothing."""
    plain = re.sub(r"[\W_]+", " ", word.casefold())
    for pattern, answer in NOT_MODELLED.items():
        if re.search(pattern, plain):
            return f" {answer[0].upper()}{answer[1:]}: {LIMITS}."
    return ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What is meant by a word of llmsim's own, as an option: it is not modelled, or the `nearest` that there is.

    Names of models, GPUs and versions go to `same_or_all`, names that users choose to `nearest`.
    """
    known = list(known)
    missing = not_modelled(word)
    there = any(not_modelled(name) == missing for name in known)  # in a policy of the user's, say
    return missing if missing and not there else nearest(word, known)


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known word, else those that contain it, else the sorted list of all.

    At most MOST_NAMES are named. Case and punctuation count last: `Log_Normal` is near `lognormal`.
    """
    known = sorted(known)
    plain = {_plain(name): name for name in reversed(known)}
    near = _plain(word)
    close = [plain[near]] if near in plain else difflib.get_close_matches(word, known, n=1)
    close = close or [plain[name] for name in difflib.get_close_matches(near, plain, n=1)]
    if close:
        return f" Did you mean {close[0]!r}?"
    parts = [name for name in known if len(near) > PART and near in _plain(name)]
    if parts:
        return f" Did you mean one of {_few([repr(name) for name in parts])}?"
    return f" Known: {_few(known)}." if known else ""


def same_or_all(word: str, known: Iterable[str]) -> str:
    """As did_you_mean for models, GPUs and versions: ' Did you mean 'x'?' for a slip alone, else all that there are."""
    known = sorted(known)
    return not_modelled(word) or slip_of(word, known) or (f" There are: {_few(known)}." if known else "")


def slip_of(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' if `word` can only be a slip for x, else nothing."""
    same = same_name(word, known)
    return f" Did you mean {same!r}?" if same else ""


def same_name(word: str, known: Iterable[str]) -> str | None:
    """The known name of a model, GPU or version that `word` can only be a slip for, None if there is none.

    A letter away lies another thing (H100 and H200, 8B and 80B, Mistral and Mixtral): every number must be the same; of
    long words one letter may be missing, too many or swapped with its neighbour, but none may be another.
    """
    return next((name for name in known if _is_slip(word, name)), None)


LONG = 5
"""Letters from which on one of them may be missing."""


def _is_slip(word: str, name: str) -> bool:
    word, name = word.casefold(), name.casefold()
    if re.findall(r"\d+", word) != re.findall(r"\d+", name):
        return False
    between = zip(re.split(r"\d+", word), re.split(r"\d+", name), strict=True)
    letters = [(re.sub(r"[\W_]+", "", one), re.sub(r"[\W_]+", "", two)) for one, two in between]
    differ = [pair for pair in letters if pair[0] != pair[1]]
    return not differ or (len(differ) == 1 and len(differ[0][1]) >= LONG and _one_slip(*differ[0]))


def _one_slip(one: str, two: str) -> bool:
    if len(one) == len(two):
        return any(one[:i] + one[i + 1 : i + 2] + one[i] + one[i + 2 :] == two for i in range(len(one) - 1))
    short, long = sorted((one, two), key=len)
    return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def _few(names: list[str]) -> str:
    """The names, or the first and how many more there are."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def _plain(word: str) -> str:
    """Letters and digits, in lower case; a word of neither stays as it is."""
    return re.sub(r"[\W_]+", "", word.casefold()) or word
