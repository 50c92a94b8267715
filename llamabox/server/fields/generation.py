"""A request's JSON into what the engine is asked and how the answer is to look. Every number is checked here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, first_present, present, wrong
from llamabox.engine.request import FILL_CONTEXT, GenerationParams, SamplingParams
from llamabox.server.config import ServerConfig
from llamabox.server.fields import unsupported
from llamabox.server.fields.grammar import Form, parse_grammar
from llamabox.server.fields.logit_bias import BiasEntry, parse_logit_bias
from llamabox.server.fields.logprobs import chat_n_top, completion_n_top, native_n_top
from llamabox.server.fields.lora import parse_lora
from llamabox.server.fields.sampling import parse_sampling
from llamabox.server.seams import Model
from llamabox.wire.text_config import ModelInfo

MAX_STOPS = 256
MAX_STOP_LENGTH = 4096
MAX_STOPS_LENGTH = 16_384
"""Of all stop strings together: they are compiled in some 30 ms then."""

MAX_RESPONSE_FIELDS = 256
MAX_MODEL_NAME = 1024

N_PREDICT_NAMES = ("n_predict", "max_completion_tokens", "max_tokens")
"""The first one present counts."""


ResponseField = tuple[str, tuple[str, ...]]
"""A key of the reply, and the path to its value in the whole one."""


class Dialect(Enum):
    """Whose defaults, names and shapes a route speaks."""

    NATIVE = "native"
    COMPLETION = "completion"
    CHAT = "chat"


N_TOP = MappingProxyType({Dialect.NATIVE: native_n_top, Dialect.COMPLETION: completion_n_top, Dialect.CHAT: chat_n_top})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A parsed request without its prompt."""

    params: GenerationParams
    logit_bias: list[BiasEntry]  # as the request has them; `biased` makes them part of `params`
    model: str  # to be shown in the reply
    stream: bool
    include_usage: bool | None  # None: stream_options did not say
    ping_interval: float  # seconds; 0: no pings
    timings_per_token: bool
    return_tokens: bool
    verbose: bool
    response_fields: list[ResponseField]  # empty: all
    n_top: int | None  # likeliest tokens to show with each token; None: no log-probabilities
    warning: str = ""  # for the reply's header of that name


def parse_options(body: dict[str, Any], config: ServerConfig, info: ModelInfo, dialect: Dialect) -> Options:
    """`body` is that of `present()`. Raises InvalidRequest naming the first field that is wrong."""
    unsupported.refuse(body, unsupported.GENERATION)
    if dialect is Dialect.COMPLETION:
        unsupported.refuse(body, unsupported.COMPLETION)
        unsupported.refuse_tools(body)
    elif dialect is Dialect.CHAT:
        unsupported.refuse(body, unsupported.CHAT)
    stream = checks.flag(body, "stream", False)
    n_top = N_TOP[dialect](body, info.n_vocab)
    form = parse_grammar(body, config.defaults)
    return Options(
        params=replace(
            _parse_params(body, config, info, dialect, form),
            n_probs=0 if n_top is None else max(n_top, 1),  # the engine's 0 means none, not even the sampled token's
            post_sampling_probs=checks.flag(body, "post_sampling_probs", False),
            return_progress=checks.flag(body, "return_progress", False) and stream,
        ),
        logit_bias=parse_logit_bias(body["logit_bias"], info.n_vocab) if "logit_bias" in body else [],
        model=parse_model(body, config, info),
        stream=stream,
        include_usage=_parse_include_usage(body),
        ping_interval=parse_ping(body, config),
        timings_per_token=checks.flag(body, "timings_per_token", False),
        return_tokens=checks.flag(body, "return_tokens", False),
        verbose=checks.flag(body, "verbose", False),
        response_fields=_parse_response_fields(body) if dialect is Dialect.NATIVE else [],
        n_top=n_top,
        warning=form.warning,
    )


def aliases(config: ServerConfig) -> list[str]:
    """The names in `--alias`, sorted; none while it is "unknown"."""
    names = {name.strip() for name in config.alias.split(",")} - {""}
    return [] if names == {"unknown"} else sorted(names)


def model_name(config: ServerConfig, info: Model) -> str:
    """The first alias, or the name of the model's file: where it lies on this machine is nobody's business."""
    return next(iter(aliases(config)), Path(info.path).name)


def _parse_params(
    body: dict[str, Any], config: ServerConfig, info: ModelInfo, dialect: Dialect, form: Form
) -> GenerationParams:
    defaults = config.defaults
    sampling = defaults.sampling if dialect is Dialect.NATIVE else _openai_defaults(config)
    return replace(
        defaults,
        n=_parse_n(body, info),
        n_predict=_parse_n_predict(body, config),
        n_keep=checks.whole(body, "n_keep", -1, INT32_MAX, defaults.n_keep),
        n_discard=checks.whole(body, "n_discard", 0, INT32_MAX, defaults.n_discard),
        stop=_parse_stop(body, defaults.stop),
        n_indent=checks.whole(body, "n_indent", 0, INT32_MAX, defaults.n_indent),
        t_max_predict_ms=checks.whole(body, "t_max_predict_ms", -INT32_MAX - 1, INT32_MAX, defaults.t_max_predict_ms),
        cache_prompt=checks.flag(body, "cache_prompt", defaults.cache_prompt),
        grammar=form.grammar,
        json_schema=form.json_schema,
        n_cache_reuse=checks.whole(body, "n_cache_reuse", 0, INT32_MAX, defaults.n_cache_reuse),
        id_slot=checks.whole(body, "id_slot", -1, info.n_slots - 1, defaults.id_slot),
        lora=parse_lora("lora", body["lora"], len(info.lora)) if "lora" in body else defaults.lora,
        sampling=parse_sampling(body, sampling, info.n_ctx),
    )


def _openai_defaults(config: ServerConfig) -> SamplingParams:
    """The defaults of OpenAI's routes: what the user set on the command line, else what OpenAI documents."""
    sampling = config.defaults.sampling
    return replace(
        sampling,
        temperature=sampling.temperature if "temperature" in config.given else 1.0,
        top_p=sampling.top_p if "top_p" in config.given else 1.0,
    )


def _parse_n(body: dict[str, Any], info: ModelInfo) -> int:
    field = "n_cmpl" if "n_cmpl" in body else "n"
    return checks.whole(body, field, 1, info.n_slots, 1)


def _parse_n_predict(body: dict[str, Any], config: ServerConfig) -> int:
    n_predict = config.defaults.n_predict
    field = first_present(body, N_PREDICT_NAMES)
    if field is not None:
        n_predict = checks.integer(field, body[field], -1, INT32_MAX)
    if n_predict == -1 and config.n_predict == FILL_CONTEXT:
        return FILL_CONTEXT  # a request can ask for no limit, but not for a shift that the command line rules out
    if config.n_predict > 0:
        return config.n_predict if n_predict < 0 else min(n_predict, config.n_predict)
    return n_predict


def _parse_stop(body: dict[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    value = body.get("stop", [])
    words = checks.strings(
        "stop", [value] if isinstance(value, str) else value, max_count=MAX_STOPS, max_length=MAX_STOP_LENGTH
    )
    if (n_characters := sum(map(len, words))) > MAX_STOPS_LENGTH:
        raise wrong("stop", f"all entries together may have {MAX_STOPS_LENGTH} characters, not {n_characters}")
    return tuple(word for word in words if word) or default


def parse_model(body: dict[str, Any], config: ServerConfig, info: Model) -> str:
    """The name to be shown in the reply: the request's, else the server's own (docs/api.md, Model names)."""
    if not body.get("model"):
        return model_name(config, info)
    name = checks.string("model", body["model"])
    if len(name) > MAX_MODEL_NAME:
        raise wrong("model", f"must have at most {MAX_MODEL_NAME} characters")
    return name


def _parse_include_usage(body: dict[str, Any]) -> bool | None:
    if "stream_options" not in body:
        return None
    options = present(checks.mapping("stream_options", body["stream_options"]))
    if "include_obfuscation" in options and checks.boolean(
        "stream_options.include_obfuscation", options["include_obfuscation"]
    ):
        raise wrong("stream_options.include_obfuscation", "true is not supported by this server; leave it out")
    return checks.flag(options, "include_usage", False)


def parse_ping(body: dict[str, Any], config: ServerConfig) -> float:
    """Seconds of silence after which a stream gets a comment; 0: never."""
    if "sse_ping_interval" not in body:
        return config.ping_interval
    return float(max(0, checks.integer("sse_ping_interval", body["sse_ping_interval"], -1, INT32_MAX)))


def _parse_response_fields(body: dict[str, Any]) -> list[ResponseField]:
    fields = body.get("response_fields", [])
    fields = checks.strings("response_fields", fields, max_count=MAX_RESPONSE_FIELDS, max_length=256)
    return [(field, tuple(field.split("/"))) for field in fields]
