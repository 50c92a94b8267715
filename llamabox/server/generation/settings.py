"""generation_settings: the engine's parameters in force, under llama-box's names and llama-server's."""

from __future__ import annotations

import math
from typing import Any

import orjson

from llamabox.engine.request import DraftingParams, GenerationParams
from llamabox.server.fields.lora import lora_object
from llamabox.server.fields.request import Options
from llamabox.server.http.json import dump_line
from llamabox.wire.text_config import ModelInfo


def settings_object(options: Options, info: ModelInfo, *, seed: int | None = None) -> dict[str, Any]:
    """The object of docs/api.md, Generation settings. Long parts are JSON already: a request's sequences share them.

    Sequences differ in `seed`, the one really drawn, which is shown as seed_cur; None: nothing ran yet."""
    params, sampling = options.params, options.params.sampling
    return {
        "n_ctx": info.n_ctx,
        "model": options.model,
        "seed": sampling.seed,
        "seed_cur": sampling.seed if seed is None else seed,
        "temperature": sampling.temperature,
        "dynatemp_range": sampling.dynatemp_range,
        "dynatemp_exponent": sampling.dynatemp_exponent,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_n_sigma": sampling.top_n_sigma,
        "xtc_probability": sampling.xtc_probability,
        "xtc_threshold": sampling.xtc_threshold,
        "typical_p": sampling.typical_p,
        "repeat_last_n": sampling.repeat_last_n,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_length,
        "dry_penalty_last_n": sampling.dry_penalty_last_n,
        "dry_sequence_breakers": _json(list(sampling.dry_sequence_breakers)),
        "mirostat": sampling.mirostat,
        "mirostat_tau": sampling.mirostat_tau,
        "mirostat_eta": sampling.mirostat_eta,
        "adaptive_target": sampling.adaptive_target,
        "adaptive_decay": sampling.adaptive_decay,
        "penalize_nl": sampling.penalize_nl,
        **_ends(params),
        "n_keep": params.n_keep,
        "n_discard": params.n_discard,
        "ignore_eos": sampling.ignore_eos,
        "stream": options.stream,
        "logit_bias": _json(_biases(options, info)),
        "n_probs": params.n_probs,
        "min_keep": sampling.min_keep,
        "grammar": _json(_grammar(params)),
        "grammar_lazy": False,
        "grammar_triggers": [],
        "preserved_tokens": [],
        "chat_format": options.answer.chat_format,
        "reasoning_format": options.answer.reasoning_format,
        "reasoning_in_content": options.answer.reasoning_in_content,
        "generation_prompt": "",
        "samplers": list(sampling.samplers),
        **_drafting(params.drafting, info),
        "timings_per_token": options.timings_per_token,
        "post_sampling_probs": params.post_sampling_probs,
        "backend_sampling": False,
        "lora": lora_object(params.lora),
    }


def _grammar(params: GenerationParams) -> str:
    """The grammar in GBNF, whether it holds from the first token on or behind a thought."""
    return params.grammar or next((one.definition for one in params.inner_grammars if one.syntax == "gbnf"), "")


def _ends(params: GenerationParams) -> dict[str, Any]:
    """Where texts end."""
    return {
        "stop": _json(list(params.stop)),
        "stop_token_ids": list(params.stop_tokens),
        "min_tokens": params.n_least,
        "max_tokens": params.n_predict,
        "n_predict": params.n_predict,
    }


def _drafting(drafting: DraftingParams, info: ModelInfo) -> dict[str, Any]:
    """Who may guess at texts, and how far."""
    return {
        "speculative.types": ",".join(info.drafters) or "none",
        "speculative.n_max": drafting.n_max,
        "speculative.n_min": drafting.n_min,
        "speculative.p_min": drafting.p_min,
    }


def _biases(options: Options, info: ModelInfo) -> list[dict[str, Any]]:
    """All that apply: the command line's, the request's, and a ban of each end token where ignore_eos is on."""
    sampling = options.params.sampling
    entries: list[tuple[int | str, float]] = [*sampling.logit_bias]
    if sampling.ignore_eos:
        entries += [(token, -math.inf) for token in info.eog_tokens]
    return [{"bias": bias if math.isfinite(bias) else None, "token": token} for token, bias in entries]


def _json(value: Any) -> orjson.Fragment:
    return orjson.Fragment(dump_line(value))
