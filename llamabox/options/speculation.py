"""Options of speculation: the values of `--spec-type`, and what goes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llamabox.engine.request import DraftingParams
from llamabox.errors import OptionsError
from llamabox.options.values.common import QUANTISED
from llamabox.wire.text_config import TextConfig

TEXT, LOOKUP, MODEL, MTP = "text", "lookup", "model", "mtp"

SPEC = {"auto": "auto", "off": "off"}
CORPUS = {"off": "off", "key": "key", "all": "all"}

SPEC_TYPES = {
    "ngram-simple": TEXT,
    "ngram-map-k": TEXT,
    "ngram-map-k4v": TEXT,
    "ngram-mod": TEXT,
    "ngram-cache": LOOKUP,
    "draft-simple": MODEL,
    "draft-mtp": MTP,
}
"""llama-server's types, and who drafts here in their place: matches in texts, counted n-grams, a draft model, or the
model's own heads.
"""

NEEDS_HIDDEN_ROWS = frozenset({"draft-eagle3", "draft-dflash", "draft-dspark"})

OF_DRAFT_MODEL = {
    "text.n_gpu_layers_draft": "-ngld",
    "text.devices_draft": "-devd",
    "text.type_k_draft": "-ctkd",
    "text.type_v_draft": "-ctvd",
    "text.n_threads_draft": "-td",
    "text.n_threads_batch_draft": "-tbd",
}
OF_DRAFTS = {
    "text.spec_n_max": "--spec-draft-n-max",
    "text.spec_n_min": "--spec-draft-n-min",
    "text.spec_p_min": "--spec-draft-p-min",
    "text.spec_corpus": "--spec-corpus",
}
OF_LOOKUP = {"text.lookup_cache_static": "-lcs", "text.lookup_cache_dynamic": "-lcd"}
N_MIN = "text.lookup_ngram_min"


def spec_types(text: str) -> tuple[str, ...]:
    """Names of llama-server's types, separated by commas, as who drafts here. `none` among them is none at all."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"expected none, or some of {', '.join(SPEC_TYPES)}")
    for name in names:
        if name in NEEDS_HIDDEN_ROWS:
            raise ValueError(f"{name} is not supported; there are none, {', '.join(SPEC_TYPES)}")
        if name != "none" and name not in SPEC_TYPES:
            raise ValueError(f"there is no {name}: expected none, or some of {', '.join(SPEC_TYPES)}")
    return () if "none" in names else tuple(dict.fromkeys(SPEC_TYPES[name] for name in names))


def check_speculation(values: Mapping[str, Any]) -> None:
    """Raises OptionsError for options that contradict each other. `values` are those that were given, by `dest`."""
    lookup = [flag for dest, flag in OF_LOOKUP.items() if values.get(dest)]
    drafting = lookup + (["--lookup-ngram-min"] if values.get(N_MIN) else [])
    drafting += ["-md"] if values.get("text.model_draft") else []
    types = values.get("text.spec_types")
    if off := _off(values):
        given = ["--spec-type"] if types and off != "--spec-type none" else []
        for flag in given + drafting:
            raise OptionsError(f"{off} and {flag} exclude each other: leave out one")
    if types:
        _check_types(types, values, drafting)
    if values.get(N_MIN) == 0 and (lookup or LOOKUP in (types or ())):
        raise OptionsError(f"--lookup-ngram-min 0 turns off what {(*lookup, 'ngram-cache')[0]} asks for: leave out one")
    n_min, n_max = values.get("text.spec_n_min", 0), values.get("text.spec_n_max", TextConfig(model="").spec_n_max)
    if n_min > n_max > 0:
        raise OptionsError(f"--spec-draft-n-min {n_min} is above --spec-draft-n-max {n_max}: no draft could be both")
    type_v = values.get("text.type_v_draft")
    if type_v in QUANTISED and values.get("text.flash_attn") == "off":
        raise OptionsError(f"-ctvd {type_v} needs flash attention: leave out -fa off, or take f16, bf16 or f32")
    drafting += ["--spec-type draft-mtp"] if MTP in (types or ()) else []
    if values.get("text.rerank") and drafting:
        raise OptionsError(f"--rerank and {drafting[0]} exclude each other: a model that ranks makes no texts")


def idle_options(values: Mapping[str, Any]) -> list[str]:
    """Warnings of options that were given and change nothing."""
    found = [] if values.get("text.model_draft") else [flag for dest, flag in OF_DRAFT_MODEL.items() if dest in values]
    warnings = [f"{flag} has no effect without -md" for flag in found]
    if off := _off(values):
        flags = [flag for dest, flag in OF_DRAFTS.items() if dest in values and flag not in off]
        warnings += [f"{flag} has no effect with {off}" for flag in flags]
    return warnings


def with_speculation(text: TextConfig, values: Mapping[str, Any]) -> TextConfig:
    """The configuration with all that its options imply for who drafts."""
    if _off(values):
        return replace(text, spec="off", spec_types=())
    types = tuple(dict.fromkeys(text.spec_types))
    asks_lookup = text.lookup_cache_static or text.lookup_cache_dynamic or LOOKUP in values.get("text.spec_types", ())
    n_min = 1 if asks_lookup and N_MIN not in values else text.lookup_ngram_min
    return replace(text, spec_types=types, lookup_ngram_min=n_min)


def drafting_of(text: TextConfig) -> DraftingParams:
    """What holds for requests that say nothing of drafts."""
    n_max = 0 if text.spec == "off" else text.spec_n_max
    return DraftingParams(n_max=n_max, n_min=text.spec_n_min, p_min=text.spec_p_min)


def _off(values: Mapping[str, Any]) -> str:
    """The option by which nothing drafts; empty where none says so."""
    if values.get("text.spec") == "off":
        return "--spec off"
    if values.get("text.spec_types") == ():
        return "--spec-type none"
    return "--spec-draft-n-max 0" if values.get("text.spec_n_max") == 0 else ""


def _check_types(types: tuple[str, ...], values: Mapping[str, Any], drafting: list[str]) -> None:
    has_model = bool(values.get("text.model_draft"))
    if MODEL in types and not has_model:
        raise OptionsError("--spec-type draft-simple needs a draft model: name its file with -md")
    if MTP in types and has_model:
        raise OptionsError("--spec-type draft-mtp drafts with the heads in the model's own file: leave out it, or -md")
    if MODEL not in types and has_model:
        raise OptionsError("--spec-type leaves the draft model of -md unused: add draft-simple, or leave out one")
    if LOOKUP not in types and (others := [flag for flag in drafting if flag != "-md"]):
        raise OptionsError(f"--spec-type leaves {others[0]} unused: add ngram-cache, or leave out one")
