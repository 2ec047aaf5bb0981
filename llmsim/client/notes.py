"""What a reader of a measurement must know, one sentence each; every one is a warning of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LATE_MS = 10.0
"""p99 of the sends' lateness, or of the event loop's lag, above which the client is said to disturb the measurement."""


def notes_on(summary: Mapping[str, Any], of_the_server: Sequence[str]) -> list[str]:
    """Of the summary's part `client`, after what was found out about the server before the run."""
    client = summary["client"]
    found = (_failures(summary), _interrupted(summary), _outputs(client), _prompts(client), _punctuality(client))
    return [f"{note[0].upper()}{note[1:]}." for note in (*of_the_server, *found) if note]


def answered(client: Mapping[str, Any]) -> int:
    """How many requests were answered in full."""
    outputs = client["outputs"]
    return int(outputs["as_asked"] + outputs["shorter"] + outputs["longer"])


def _failures(summary: Mapping[str, Any]) -> str:
    reasons = summary["client"]["failures"]
    if not reasons:
        return ""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"{summary['failed']:,} of {summary['sent']:,} requests failed ({counts}); they are rows with a reason"


def _interrupted(summary: Mapping[str, Any]) -> str:
    if not summary["client"]["interrupted"]:
        return ""
    return f"the run was interrupted: {summary['requests']['not_sent']:,} requests were never sent"


def _outputs(client: Mapping[str, Any]) -> str:
    """Answers of another length than asked, and how tokens were counted."""
    outputs, count = client["outputs"], answered(client)
    parts = []
    if outputs["shorter"] or outputs["longer"]:
        parts.append(
            f"{outputs['shorter']:,} of {count:,} answers were shorter than asked and {outputs['longer']:,} longer "
            f"({outputs['given_tokens']:,} tokens in all, {outputs['asked_tokens']:,} asked)"
        )
    if uncounted := count - outputs["counted_by_the_server"]:
        parts.append(
            f"the server did not count the tokens of {uncounted:,} answers, so each piece of text was taken for one "
            "token"
        )
    elif outputs["token_events"] != outputs["given_tokens"]:
        parts.append(
            f"{outputs['given_tokens']:,} tokens came in {outputs['token_events']:,} pieces: ITL is the time between "
            "pieces, TPOT that between tokens"
        )
    return "; ".join(parts)


def _prompts(client: Mapping[str, Any]) -> str:
    prompts = client["prompts"]
    if not answered(client):
        return ""
    if prompts["reported_tokens"] is None:
        known = "are taken to be as long as asked" if prompts["asked_tokens"] else "count as 0 tokens"
        return f"the server did not say how long prompts were: they {known}"
    if not prompts["max_error_tokens"]:
        return ""
    return (
        f"prompts ({prompts['kind']}) were {prompts['mean_error_tokens']:.3g} tokens off the asked length on average, "
        f"{prompts['max_error_tokens']:,} at most ({prompts['reported_tokens']:,} tokens reported, "
        f"{prompts['asked_tokens']:,} asked); input tokens are those reported"
    )


def _punctuality(client: Mapping[str, Any]) -> str:
    late, lag = client["send_lateness_ms"], client["loop_lag_ms"]
    parts = []
    if late and late["p99"] > LATE_MS:
        parts.append(f"requests were sent up to {late['p99']:.3g} ms late (p99; p50 {late['p50']:.3g} ms)")
    if lag and lag["p99"] > LATE_MS:
        parts.append(f"the client woke up to {lag['p99']:.3g} ms late (p99), so times of tokens are late by as much")
    if not parts:
        return ""
    return "; ".join(parts) + ": run the client on a machine of its own, or lower the load"
