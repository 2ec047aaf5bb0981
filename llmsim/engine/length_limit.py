"""What an engine does with requests that ask for more tokens than max_model_len, the longest sequence it was set to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.core.request import Request
    from llmsim.schedulers.base import Scheduler


class LengthLimit:
    """The limit of one replica: how many requests it `refused`, and how many answers it `capped`.

    vLLM refuses prompts that leave no room for a token and ends other answers where the room ends (`ends_at_limit`).
    The other originals end no answer there, so what asks for more is refused. (Sarathi-Serve and its descendants look
    at the prompt alone, and let decodes run past the length that the model was set to: nothing is known of that.)
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.max_model_len = scheduler.max_model_len
        self._ends_there = scheduler.ends_at_limit
        self.refused = self.capped = 0

    def admit(self, request: Request) -> bool:
        """Whether the request is served, its answer perhaps shortened; else `request.rejected` says why it is not."""
        limit, prompt, output = self.max_model_len, request.prompt_tokens, request.output_tokens
        room = limit - prompt
        if output <= room:
            return True
        if self._ends_there and room > 0:
            self.capped += 1
            request._output_target = room
            return True
        self.refused += 1
        if room < 0:
            request.rejected = f"prompt_tokens={prompt} is more than max_model_len={limit}"
        elif not room:
            request.rejected = f"prompt_tokens={prompt} leaves no room for an answer in max_model_len={limit}"
        else:
            request.rejected = f"prompt_tokens={prompt} and output_tokens={output} are more than max_model_len={limit}"
        return False

    def target_anew(self, request: Request) -> int:
        """`generated` at which a request ends that emits all its output tokens once more."""
        target = request.generated + request.output_tokens
        return min(target, self.max_model_len - request.prompt_tokens) if self._ends_there else target
