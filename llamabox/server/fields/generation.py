"""The fields that become GenerationParams: how much is generated, where it ends, and by which rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llamabox import checks
from llamabox.checks import INT32_MAX, first_present, present, wrong
from llamabox.engine.request import FILL_CONTEXT, MAX_STOP_LENGTH, DraftingParams, GenerationParams
from llamabox.server.fields.grammar import AnswerForm
from llamabox.server.fields.lora import parse_lora
from llamabox.server.fields.prompt import check_token
from llamabox.server.fields.sampling import parse_sampling
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo

MAX_STOPS = 256
MAX_STOPS_LENGTH = 16_384
"""Characters of all stop strings together: compiling so many takes some 30 ms."""

SPECULATIVE = ("n_max", "n_min", "p_min", "type", "ngram_size_n", "ngram_size_m", "ngram_min_hits")
"""llama-server's fields of `speculative`, written `{"speculative": {"n_max": 0}}` or `{"speculative.n_max": 0}`."""

N_PREDICT_NAMES = ("n_predict", "max_completion_tokens", "max_tokens")
"""The first one present counts."""


def parse_params(
    body: dict[str, Any], config: ModelConfig, defaults: GenerationParams, info: ModelInfo, form: AnswerForm
) -> GenerationParams:
    """The defaults with what the body says.

    Log-probabilities and progress, which belong to the reply too, keep their defaults. Raises InvalidRequest.
    """
    n_predict = _parse_n_predict(body, config.n_predict, defaults.n_predict)
    return replace(
        defaults,
        n=_parse_n(body, info),
        n_predict=n_predict,
        n_least=_parse_n_least(body, n_predict),
        n_keep=checks.whole(body, "n_keep", -1, INT32_MAX, defaults.n_keep),
        n_discard=checks.whole(body, "n_discard", 0, INT32_MAX, defaults.n_discard),
        stop=_parse_stop(body, defaults.stop),
        stop_tokens=_parse_stop_tokens(body, info),
        n_indent=checks.whole(body, "n_indent", 0, INT32_MAX, defaults.n_indent),
        t_max_predict_ms=checks.whole(body, "t_max_predict_ms", -INT32_MAX - 1, INT32_MAX, defaults.t_max_predict_ms),
        cache_prompt=checks.flag(body, "cache_prompt", defaults.cache_prompt),
        grammar=form.grammar,
        json_schema=form.json_schema,
        form_field=form.field,
        answer_grammar=f"start: @{form.inner[0].name}\n" if form.inner else "",
        inner_grammars=form.inner,
        n_cache_reuse=checks.whole(body, "n_cache_reuse", 0, INT32_MAX, defaults.n_cache_reuse),
        id_slot=checks.whole(body, "id_slot", -1, info.n_slots - 1, defaults.id_slot),
        lora=parse_lora("lora", body["lora"], len(info.lora)) if "lora" in body else defaults.lora,
        drafting=_parse_drafting(body, defaults.drafting),
        sampling=parse_sampling(body, defaults.sampling, info.n_ctx),
    )


def parse_prediction(body: dict[str, Any], info: ModelInfo) -> str:
    """The text that the client foresees as the answer, or most of it; empty where it foresees none."""
    if "prediction" not in body:
        return ""
    prediction = present(checks.mapping("prediction", body["prediction"]))
    checks.one_of("prediction.type", prediction.get("type"), ("content",))
    content = prediction.get("content")
    text = content if isinstance(content, str) else "".join(_parts("prediction.content", content))
    n_least = -(-checks.n_bytes(text) // info.longest_piece)
    if n_least > info.n_ctx:
        raise wrong("prediction", f"has at least {n_least} tokens, more than the context of {info.n_ctx}")
    return text


def _parts(field: str, value: Any) -> list[str]:
    """The texts of an array of content parts."""
    if not isinstance(value, list):
        raise wrong(field, f"must be a string or an array of text parts, not {checks.describe(value)}")
    texts: list[str] = []
    for i, one in enumerate(value):
        part = present(checks.mapping(f"{field}[{i}]", one))
        checks.one_of(f"{field}[{i}].type", part.get("type"), ("text",))
        texts.append(checks.string(f"{field}[{i}].text", part.get("text")))
    return texts


def _parse_drafting(body: dict[str, Any], defaults: DraftingParams) -> DraftingParams:
    """`defaults` are the server's, whose n_max is also the most that a request may ask for."""
    given = _speculative(body)
    for name in SPECULATIVE[3:]:
        if name in given and (name, given[name]) != ("type", "none"):
            raise wrong(
                f"speculative.{name}",
                f"{checks.describe(given[name])} is not for requests to choose; "
                'leave it out, or say "speculative.n_max": 0 for no drafts',
            )
    n_max = 0 if "type" in given else defaults.n_max
    if "n_max" in given:
        asked = checks.integer("speculative.n_max", given["n_max"], -1, INT32_MAX)
        n_max = asked if n_max < 0 else n_max if asked < 0 else min(asked, n_max)
    n_min, p_min = defaults.n_min, defaults.p_min
    if "n_min" in given:
        n_min = checks.integer("speculative.n_min", given["n_min"], 0, INT32_MAX)
    if "p_min" in given:
        p_min = checks.number("speculative.p_min", given["p_min"], 0, 1)
    return replace(defaults, n_max=n_max, n_min=min(n_min, n_max) if n_max >= 0 else n_min, p_min=p_min)


def _speculative(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of `speculative` that the body has, in either form."""
    given = present(checks.mapping("speculative", body["speculative"])) if "speculative" in body else {}
    for name in SPECULATIVE:
        field = f"speculative.{name}"
        if field in body:
            if name in given:
                raise wrong(field, "stands in the object `speculative` as well; leave out one")
            given[name] = body[field]
    return given


def _parse_n(body: dict[str, Any], info: ModelInfo) -> int:
    field = "n_cmpl" if "n_cmpl" in body else "n"
    return checks.whole(body, field, 1, info.n_slots, 1)


def _parse_n_predict(body: dict[str, Any], cap: int, default: int) -> int:
    """`cap` is the server's: the most when above 0; FILL_CONTEXT takes the place of a request's -1."""
    field = first_present(body, N_PREDICT_NAMES)
    n_predict = default if field is None else checks.integer(field, body[field], -1, INT32_MAX)
    if n_predict == -1 and cap == FILL_CONTEXT:
        return FILL_CONTEXT  # a request can ask for no limit, but not for a shift that the command line rules out
    if cap > 0:
        return cap if n_predict < 0 else min(n_predict, cap)
    return n_predict


def _parse_stop(body: dict[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    value = body.get("stop", [])
    words = check_stops("stop", [value] if isinstance(value, str) else value)
    return tuple(word for word in words if word) or default


def check_stops(field: str, value: Any) -> list[str]:
    """Stop strings, as many and as long as the engine takes them."""
    words = checks.strings(field, value, max_count=MAX_STOPS, max_length=MAX_STOP_LENGTH)
    if (n_characters := sum(map(len, words))) > MAX_STOPS_LENGTH:
        raise wrong(field, f"all entries together may have {MAX_STOPS_LENGTH} characters, not {n_characters}")
    return words


def _parse_n_least(body: dict[str, Any], n_predict: int) -> int:
    n_least = checks.whole(body, "min_tokens", 0, INT32_MAX, 0)
    if 0 <= n_predict < n_least:
        raise wrong("min_tokens", f"must be at most the {n_predict} tokens that are generated, not {n_least}")
    return n_least


def _parse_stop_tokens(body: dict[str, Any], info: ModelInfo) -> tuple[int, ...]:
    tokens = body.get("stop_token_ids", [])
    if not isinstance(tokens, list):
        raise wrong("stop_token_ids", f"must be an array of token ids, not {checks.describe(tokens)}")
    if len(tokens) > MAX_STOPS:
        raise wrong("stop_token_ids", f"must have at most {MAX_STOPS} entries, not {len(tokens)}")
    for token in tokens:
        check_token("stop_token_ids", token, info.n_vocab)
    return tuple(tokens)
