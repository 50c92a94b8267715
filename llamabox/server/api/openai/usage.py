"""Token counts and times of a reply, in OpenAI's words and llama-box's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamabox.engine.events import Timings
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.timings import per_token, predicted_per_second


def usage_object(choices: Sequence[Choice], options: Options) -> dict[str, Any]:
    """Token counts and times of a reply (docs/api.md, Usage). A prompt counts once for its sequences."""
    n, foresees = options.params.n, bool(options.prediction)
    prompts = choices[::n]
    n_prompt = sum(choice.n_prompt for choice in prompts)
    timings = [choice.end.timings for choice in choices if choice.end is not None]
    n_predicted = sum(one.predicted_n for one in timings)
    n_audio = sum(choice.n_audio for choice in prompts)
    n_drafted = sum(one.n_drafted for one in timings)
    details = _foreseen(timings) if foresees else {}
    if any(choice.parser is not None for choice in choices):
        details["reasoning_tokens"] = sum(choice.n_thought for choice in choices)
    rates = [predicted_per_second(one) for one in timings if one.predicted_n > 1]
    return {
        "completion_tokens": n_predicted,
        "prompt_tokens": n_prompt,
        "total_tokens": n_prompt + n_predicted,
        "prompt_tokens_details": {
            "cached_tokens": sum(choice.n_cached for choice in prompts),
            **({"audio_tokens": n_audio} if n_audio else {}),
        },
        "time_to_first_token_ms": timings[0].prompt_ms if timings else 0.0,
        "time_per_output_token_ms": per_token(
            sum(max(one.predicted_n - 1, 0) for one in timings), sum(one.predicted_ms for one in timings)
        ),
        "tokens_per_second": sum(rates) / len(rates) if rates else 0.0,
        **(_drafted(n_drafted, sum(one.n_accepted for one in timings)) if n_drafted else {}),
        **({"completion_tokens_details": details} if details else {}),
    }


def _drafted(n_drafted: int, n_accepted: int) -> dict[str, Any]:
    """llama-box's words for the tokens of drafts, and the part of them that came."""
    return {"draft_tokens": n_drafted, "draft_tokens_acceptance": n_accepted / n_drafted}


def _foreseen(timings: Sequence[Timings]) -> dict[str, Any]:
    """OpenAI's words for the tokens of a prediction that were tried."""
    n_accepted = sum(one.n_foreseen_accepted for one in timings)
    n_rejected = sum(one.n_foreseen for one in timings) - n_accepted
    return {"accepted_prediction_tokens": n_accepted, "rejected_prediction_tokens": n_rejected}
