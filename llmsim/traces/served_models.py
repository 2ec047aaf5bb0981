"""Which models requests may ask for, and how long a prompt each takes.

A cluster that serves several models has several limits on lengths. Which one holds is known only when a request has its
class; so the file and the draws are held to the longest, and here every request is held to its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmsim.core.request import SloClass
from llmsim.errors import ConfigError, TraceError, slip_of
from llmsim.traces.limits import clip_lengths, over_limit
from llmsim.traces.selection import Selection

Ints = NDArray[np.int64]

Limits = int | Mapping[str, int] | None
"""Tokens that a request may have (`limits.ON_LONG`): the same for all (None: no limit), or by each model's name."""


def shared_limit(limits: Limits, on_long: str) -> int | None:
    """What file and draws are held to, before models are known.

    The longest of several; none where requests are scaled down, which must happen once, to their own limit.
    """
    if not isinstance(limits, Mapping):
        return limits
    several = set(limits.values())
    return None if len(several) > 1 and on_long == "clip" else max(several)


def check_models(limits: Limits, classes: Sequence[SloClass], counts: Sequence[int] | Ints) -> None:
    """ConfigError if a request asks for a model that is not served, or for none where several are; `counts` are the
    requests of each class."""
    if not isinstance(limits, Mapping):
        return
    requests = sum(counts)
    for asked, count in zip(classes, counts, strict=True):
        if count and asked.model is None and len(limits) > 1:
            raise ConfigError(
                f"{count} of {requests} requests (class {asked.name!r}) name no model, but the cluster serves "
                f"{', '.join(limits)}: give each of workload.classes a model or the trace a column `model`; or, if all "
                "stand for one model, give each of cluster.groups the same `model`"
            )
        if count and asked.model is not None and asked.model not in limits:
            raise ConfigError(
                f"{count} of {requests} requests (class {asked.name!r}) ask for model {asked.model!r}, which nobody "
                f"serves.{slip_of(asked.model, limits)} The cluster serves {', '.join(limits)}; a group of "
                "cluster.groups serves the model of its calibration, or the one that its `model` names"
            )


def hold_to_own_limit(
    limits: Limits, on_long: str, drawn: Selection, classes: Sequence[SloClass], index: Ints
) -> NDArray[np.bool_] | None:
    """Hold each request's lengths to the limit of its model; which of them stay (None: all), shape (requests,).

    'clip' changes `drawn`. 'drop' leaves requests out together with their arrivals, so fewer are left than were drawn.
    TraceError for a prompt that is too long ('error'), or if none is left.
    """
    if not isinstance(limits, Mapping) or len(set(limits.values())) < 2:
        return None
    of_class = [limits.get(c.model or "", 0) for c in classes]
    limit = np.array(of_class, dtype=np.int64)[index]
    if on_long == "clip":
        clipped = clip_lengths(drawn.prompt, drawn.output, limit)
        drawn.prompt, drawn.output = clipped.prompt_tokens, clipped.output_tokens
        drawn.clipped += int(clipped.changed.sum())
        return None
    over = over_limit(drawn.prompt, drawn.output, limit)
    reasons = list(over) if on_long == "drop" else ["prompt_too_long"]
    stays: NDArray[np.bool_] = ~np.any([over[reason] for reason in reasons], axis=0)
    if stays.all():
        return None
    if on_long == "error":
        first = int(np.argmin(stays))
        raise TraceError(
            f"request {first}, prompt_tokens: {drawn.prompt[first]} is longer than the limit of {limit[first]} tokens "
            f"of its model {classes[index[first]].model} ({int((~stays).sum())} of {len(stays)} requests are); raise "
            "the limit, scale them down with on_long='clip' (--on-long clip), or leave them out with on_long='drop' "
            "(--on-long drop)"
        )
    if not stays.any():
        raise TraceError("no request is within the limit of its model; raise the limit or use on_long='clip'")
    for reason in reasons:
        if over[reason].any():
            drawn.dropped[reason] = drawn.dropped.get(reason, 0) + int(over[reason].sum())
    return stays
