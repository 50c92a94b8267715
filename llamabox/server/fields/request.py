"""A request that generates, without its prompt: the engine's parameters, and the shape of the reply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llamabox import checks
from llamabox.checks import present, wrong
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.server.fields import unsupported
from llamabox.server.fields.body import parse_model, parse_ping
from llamabox.server.fields.generation import parse_params, parse_prediction
from llamabox.server.fields.grammar import AnswerForm, parse_grammar
from llamabox.server.fields.logit_bias import Biases, merged, parse_logit_bias
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

CONTENT_ONLY = "Content-only"
"""llama-server's name for the form of an answer that is text alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWords:
    """How an answer is taken apart, as `generation_settings` tell it."""

    chat_format: str = CONTENT_ONLY  # the kind of form that is looked for, as in /props
    reasoning_format: str = "none"  # as asked
    reasoning_in_content: bool = False  # thoughts stand in the text beside where they are told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A parsed request without its prompt."""

    params: GenerationParams
    model: str  # to be shown in the reply
    stream: bool
    include_usage: bool | None  # None: stream_options did not say
    ping_interval: float  # seconds; 0: no pings
    timings_per_token: bool
    return_tokens: bool
    verbose: bool
    n_top: int | None  # likeliest tokens to show with each token; None: no log-probabilities
    prediction: str = ""  # what the client foresees of the answer
    warning: str = ""  # for the reply's header of that name
    answer: AnswerWords = AnswerWords()


def parse_options(
    body: dict[str, Any],
    config: ModelConfig,
    defaults: GenerationParams,
    info: ModelInfo,
    *,
    n_top: int | None = None,
    shows_prompt: bool = False,
    form: AnswerForm | None = None,
) -> Options:
    """The fields that all APIs have. `body` is that of `present()`; `defaults` hold where it says nothing.

    `n_top` and `form` come of the API's own fields; None: the form is that of `parse_grammar`. `shows_prompt`: its
    replies show the prompt. Raises InvalidRequest.
    """
    unsupported.refuse(body, unsupported.GENERATION)
    stream = checks.flag(body, "stream", False)
    form = form or parse_grammar(body, defaults)
    params = parse_params(body, config, defaults, info, form)
    verbose = checks.flag(body, "verbose", False)
    return Options(
        params=replace(
            params,
            sampling=replace(params.sampling, logit_bias=_biases(body, params.sampling, info)),
            return_prompt=shows_prompt or verbose,
            n_probs=0 if n_top is None else max(n_top, 1),  # the engine's 0 means none, not even the sampled token's
            post_sampling_probs=checks.flag(body, "post_sampling_probs", False),
            return_progress=checks.flag(body, "return_progress", False) and stream,
        ),
        model=parse_model(body, config, info),
        stream=stream,
        include_usage=_parse_include_usage(body),
        ping_interval=parse_ping(body, config),
        timings_per_token=checks.flag(body, "timings_per_token", False),
        return_tokens=checks.flag(body, "return_tokens", False),
        verbose=verbose,
        n_top=n_top,
        prediction=parse_prediction(body, info),
        warning=form.warning,
    )


def openai_defaults(defaults: GenerationParams, config: ModelConfig) -> GenerationParams:
    """The defaults of OpenAI's routes: what the user set on the command line, else what OpenAI documents."""
    sampling = replace(
        defaults.sampling,
        temperature=defaults.sampling.temperature if "temperature" in config.given else 1.0,
        top_p=defaults.sampling.top_p if "top_p" in config.given else 1.0,
    )
    return replace(defaults, sampling=sampling)


def _biases(body: dict[str, Any], sampling: SamplingParams, info: ModelInfo) -> Biases:
    entries = parse_logit_bias(body["logit_bias"], info.n_vocab) if "logit_bias" in body else ()
    return merged(sampling.logit_bias, entries) if entries else sampling.logit_bias


def _parse_include_usage(body: dict[str, Any]) -> bool | None:
    """Of `stream_options`; None where it does not say."""
    if "stream_options" not in body:
        return None
    options = present(checks.mapping("stream_options", body["stream_options"]))
    if "include_obfuscation" in options and checks.boolean(
        "stream_options.include_obfuscation", options["include_obfuscation"]
    ):
        raise wrong("stream_options.include_obfuscation", "true is not supported by this server; leave it out")
    return checks.flag(options, "include_usage", False)
