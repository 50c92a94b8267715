"""What docs/api.md says of replies: exact keys with their types, and the check of it."""

from __future__ import annotations

from typing import Any

NUMBER = (int, float)
TEXT_OR_NULL = (str, type(None))

LAST_OF_PROMPT = (1, 2)
"""Tokens that are computed of a prompt that is all there: two where a lone row has a kernel of its own."""

SETTINGS: dict[str, Any] = {
    "n_ctx": int, "model": str, "seed": int, "seed_cur": int, "temperature": NUMBER, "dynatemp_range": NUMBER,
    "dynatemp_exponent": NUMBER, "top_k": int, "top_p": NUMBER, "min_p": NUMBER, "top_n_sigma": NUMBER,
    "xtc_probability": NUMBER, "xtc_threshold": NUMBER, "typical_p": NUMBER, "repeat_last_n": int,
    "repeat_penalty": NUMBER, "presence_penalty": NUMBER, "frequency_penalty": NUMBER, "dry_multiplier": NUMBER,
    "dry_base": NUMBER, "dry_allowed_length": int, "dry_penalty_last_n": int, "dry_sequence_breakers": [str],
    "mirostat": int, "mirostat_tau": NUMBER, "mirostat_eta": NUMBER, "adaptive_target": NUMBER,
    "adaptive_decay": NUMBER, "penalize_nl": bool, "stop": [str], "max_tokens": int, "n_predict": int,
    "stop_token_ids": [int], "min_tokens": int, "n_keep": int, "n_discard": int,
    "ignore_eos": bool, "stream": bool, "logit_bias": [{"bias": (*NUMBER, type(None)), "token": int}],
    "n_probs": int, "min_keep": int, "grammar": str, "grammar_lazy": bool, "grammar_triggers": list,
    "preserved_tokens": list, "chat_format": str, "reasoning_format": str, "reasoning_in_content": bool,
    "generation_prompt": str, "samplers": [str], "speculative.types": str, "speculative.n_max": int,
    "speculative.n_min": int, "speculative.p_min": NUMBER, "timings_per_token": bool,
    "post_sampling_probs": bool, "backend_sampling": bool, "lora": [{"id": int, "scale": NUMBER}],
}  # fmt: skip
TIMINGS = {
    "cache_n": int, "prompt_n": int, "prompt_ms": NUMBER, "prompt_per_token_ms": NUMBER, "prompt_per_second": NUMBER,
    "predicted_n": int, "predicted_ms": NUMBER, "predicted_per_token_ms": NUMBER, "predicted_per_second": NUMBER,
}  # fmt: skip
USAGE = {
    "completion_tokens": int, "prompt_tokens": int, "total_tokens": int,
    "prompt_tokens_details": {"cached_tokens": int},
    "time_to_first_token_ms": NUMBER, "time_per_output_token_ms": NUMBER, "tokens_per_second": NUMBER,
}  # fmt: skip
FINAL = {
    "index": int, "content": str, "tokens": [int], "id_slot": int, "stop": bool, "model": str, "tokens_predicted": int,
    "tokens_evaluated": int, "tokens_cached": int, "generation_settings": SETTINGS, "prompt": str,
    "has_new_line": bool, "truncated": bool, "stop_type": str, "stopped_eos": bool, "stopped_word": bool,
    "stopped_limit": bool, "stopping_word": str, "timings": TIMINGS,
}  # fmt: skip
PARTIAL = {
    "index": int, "content": str, "tokens": [int], "tokens_predicted": int, "tokens_evaluated": int, "id_slot": int,
    "stop": bool, "model": str,
}  # fmt: skip
LIKELY = {"id": int, "token": str, "bytes": [int], "logprob": NUMBER}
PROBABILITIES = [{**LIKELY, "top_logprobs": [LIKELY]}]
ENVELOPE = {"id": str, "object": str, "created": int, "model": str, "system_fingerprint": str}
LEGACY_LOGPROBS = {"tokens": [str], "token_logprobs": [NUMBER], "top_logprobs": [dict], "text_offset": [int]}
PROGRESS = {"total": int, "cache": int, "processed": int, "time_ms": NUMBER}
RANKED = {"index": int, "relevance_score": NUMBER}
RANKING = {
    "model": str, "object": str, "results": [RANKED], "usage": {"prompt_tokens": int, "total_tokens": int},
}  # fmt: skip
ADAPTER = {"id": int, "path": str, "scale": NUMBER, "task_name": str, "prompt_prefix": str}
NEXT_TOKEN = {
    "has_next_token": bool, "has_new_line": bool, "n_remain": int, "n_decoded": int, "stopped_eos": bool,
    "stopped_word": bool, "stopped_limit": bool, "stopping_word": str,
}  # fmt: skip
SLOT = {
    "id": int, "n_ctx": int, "speculative": bool, "is_processing": bool, "id_task": int, "state": int,
    "next_token": [NEXT_TOKEN],
}  # fmt: skip
USED_SLOT = {
    **SLOT, **SETTINGS, "n_prompt_tokens": int, "n_prompt_tokens_processed": int, "n_prompt_tokens_cache": int,
    "params": SETTINGS,
}  # fmt: skip
MODEL = {
    "type": str, "display_name": str, "created_at": str, "lifecycle": str, "max_input_tokens": int,
    "id": str, "object": str, "created": int, "owned_by": str, "aliases": [str], "tags": [str],
    "architecture": {"input_modalities": [str], "output_modalities": [str]},
    "meta": {
        "vocab_type": int, "n_vocab": int, "n_ctx": int, "n_ctx_train": int, "n_embd": int, "n_params": int,
        "size": int, "ftype": str,
    },
}  # fmt: skip
LIST_ENDS = {"first_id": str, "last_id": str, "has_more": bool}
"""Of Anthropic's lists."""

OLLAMA_MODEL = {
    "name": str, "model": str, "modified_at": str, "size": str, "digest": str, "type": str, "description": str,
    "tags": [str], "capabilities": [str], "parameters": str,
    "details": {
        "parent_model": str, "format": str, "family": str, "families": [str], "parameter_size": str,
        "quantization_level": str,
    },
}  # fmt: skip
PROPS = {
    "default_generation_settings": {**SETTINGS, "params": SETTINGS}, "total_slots": int, "model_alias": str,
    "media_marker": str, "model_ftype": str, "model_path": str,
    "modalities": {"vision": bool, "audio": bool, "video": bool},
    "endpoint_slots": bool, "endpoint_props": bool, "endpoint_metrics": bool, "chat_template": str, "bos_token": str,
    "chat_format": str, "chat_format_known": dict, "chat_template_caps": dict,
    "eos_token": str, "build_info": str, "is_sleeping": bool, "cors_proxy_enabled": bool,
}  # fmt: skip


def assert_shape(value: Any, shape: Any, where: str = "reply") -> None:
    """`shape` is a type or several, a list of one shape for all items, or a dict of exactly these keys."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), f"{where} is {value!r}"
        missing, unknown = shape.keys() - value.keys(), value.keys() - shape.keys()
        assert not missing and not unknown, f"{where}: missing {sorted(missing)}, unknown {sorted(unknown)}"  # noqa: PT018
        for key, inner in shape.items():
            assert_shape(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{where} is {value!r}"
        for i, item in enumerate(value):
            assert_shape(item, shape[0], f"{where}[{i}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        assert isinstance(value, kinds), f"{where} is {value!r}"
        assert isinstance(value, bool) <= (bool in kinds), f"{where} is {value!r}"
