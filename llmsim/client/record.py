"""One request on its way: when it was sent, when its tokens came, how it ended."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from llmsim.client.protocol import DONE, read_chunk
from llmsim.core.request import NEVER

FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"
BROKEN, NO_TEXT, SERVER_ERROR, INTERRUPTED = "broken stream", "no text", "error in the stream", "interrupted"
LONGEST_DETAIL = 300


@dataclass(slots=True)
class Record:
    """Times are int ns since the run began, NEVER until they happen; lengths are tokens, None: the server said none.

    planned_ns  when it was to be sent; in a closed loop when the answer before it ended
    arrival_ns  when the client began to send it: latencies count from here
    sent_ns     when its headers went into the socket
    ended_ns    when the answer ended or failed
    times       of the token events, in order
    """

    id: int
    prompt_asked: int
    output_asked: int
    planned_ns: int = 0
    arrival_ns: int = NEVER
    sent_ns: int = NEVER
    ended_ns: int = NEVER
    times: array[int] = field(default_factory=lambda: array("q"))
    prompt_reported: int | None = None
    output_reported: int | None = None
    status: str = ""
    reason: str = ""
    detail: str = ""
    complete: bool = False
    """Whether the stream said that it was: with a finish_reason or [DONE]."""

    @property
    def ok(self) -> bool:
        """Whether it was answered in full."""
        return self.status == FINISHED

    @property
    def why(self) -> str:
        """Reason and detail in one line."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    @property
    def generated(self) -> int:
        """Tokens of the answer: as the server counted them, else its token events."""
        return len(self.times) if self.output_reported is None else self.output_reported

    def take(self, data: bytes, at_ns: int) -> None:
        """One event of the stream, whose bytes came at `at_ns`."""
        if data == DONE:
            self.complete = True
            return
        if not data:  # keeps the connection alive
            return
        try:
            chunk = read_chunk(data)
        except ValueError as error:
            self.fail(BROKEN, f"an event that is no chunk of an answer ({error}): {data[:80]!r}")
            return
        if chunk.error:
            self.fail(SERVER_ERROR, chunk.error)
        if chunk.token:
            self.times.append(at_ns)
        if chunk.finish:
            self.complete = True
        if chunk.prompt_tokens is not None:
            self.prompt_reported = chunk.prompt_tokens
        if chunk.output_tokens is not None:
            self.output_reported = chunk.output_tokens

    def fail(self, reason: str, detail: str = "", status: str = FAILED) -> None:
        """It came to nothing; the first reason counts."""
        if not self.status:
            self.status, self.reason = status, reason
            self.detail = " ".join(detail.split())[:LONGEST_DETAIL]

    def end(self, at_ns: int) -> None:
        """The stream is over: finished if it was complete and had text."""
        self.ended_ns = at_ns
        if not self.complete:
            self.fail(BROKEN, "it ended without a finish_reason and without [DONE]")
        if not self.times:
            self.fail(NO_TEXT, "the answer ended without any text, so its first token has no time")
        if not self.status:
            self.status = FINISHED
