"""Makes configurations of a command line and the environment. Pure, except that it reads files that options name.

The rules are llama-box's: words in order, the last one wins, a word that is no option is passed over, an
unknown option is warned about and passed over, unless it looks like a slip of one that protects. A wrong value is an
error.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamabox.chat.config import ChatConfig
from llamabox.engine.request import RANDOM_SEED, GenerationParams, LoraSet, SamplingParams, lora_set
from llamabox.errors import OptionsError
from llamabox.imaging.config import ImageConfig
from llamabox.lending.config import RpcConfig
from llamabox.log.masking import masked_words
from llamabox.machine import processors
from llamabox.options import OPTIONS, Option
from llamabox.options.argv import Use, check_variables, read_words, shown
from llamabox.options.defaults import unescape
from llamabox.options.refused import CHOOSING, CHOOSING_VARIABLES
from llamabox.options.speculation import check_speculation, drafting_of, idle_options, with_speculation
from llamabox.options.values.common import QUANTISED, unknown_samplers
from llamabox.options.values.weights import with_cpu_weights
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from llamabox.wire.text_config import TextConfig


@dataclass(frozen=True, slots=True)
class OptionValues:
    """The given options' values by `Option.dest`, and warnings for the user."""

    values: dict[str, Any]
    warnings: tuple[str, ...]


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> OptionValues:
    """Read the words, then the environment for the other options. Raises OptionsError."""
    words = read_words(argv)
    values: dict[str, Any] = {}
    warnings = list(words.warnings)
    for use in words.uses:
        _take(values, warnings, use)
    check_variables(environ)
    _read_environment(values, environ)
    warnings += _choices_passed_over(words.choosing, values, environ)
    if "defrag_thold" in values:
        warnings.append("-dt: the KV memory is not defragmented any more, this option has no effect")
    if values.get("jinja") is False:
        warnings.append("--no-jinja: chat templates are always Jinja programs here, this option has no effect")
    if not values.get("images"):
        idle = [option.flags[0] for option in OPTIONS if option.dest in values and option.dest.startswith("image.")]
        warnings += [f"{flag} has no effect without --images" for flag in idle]
    if not values.get("rpc.port"):
        idle = [option.flags[0] for option in OPTIONS if option.dest in values and option.dest.startswith("rpc.")]
        warnings += [f"{flag} has no effect without --rpc-server-port" for flag in idle if flag != "--rpc-server-port"]
    if values.get("images") and values.pop("text.embeddings", False):  # gpustack gives both to every llama-box
        warnings.append("--embeddings has no effect beside --images: a model that draws makes no vectors")
    _check_together(values)
    warnings += idle_options(values)
    return OptionValues(values, tuple(warnings))


def _choices_passed_over(flags: Sequence[str], values: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Warnings about choices of a model that `-m` overrules. Raises OptionsError where there is no `-m`."""
    reasons = {flag: CHOOSING[flag] for flag in flags}
    reasons |= {name: why for name, why in CHOOSING_VARIABLES.items() if environ.get(name)}
    if reasons and "text.model" not in values:
        name, why = next(iter(reasons.items()))
        raise OptionsError(f"{name}: {why}")
    return [f"{name} has no effect beside -m: {why}" for name, why in reasons.items()]


def _take(values: dict[str, Any], warnings: list[str], use: Use) -> None:
    """Raises OptionsError for a value that the option does not take."""
    option = use.option
    if option.parse is None or not use.words:
        _store(values, option, option.const)
        return
    words = [_as_text(option, use.flag, word) for word in use.words]
    given = " ".join(words)
    try:
        _store(values, option, option.parse(*words))
    except ValueError as error:
        raise OptionsError(f"{shown(use.flag, given)}: {error}") from None
    if option.dest == "sampling.samplers":
        warnings += [
            f"{use.flag}: there is no sampler {name!r}, it is left out" for name in unknown_samplers(use.flag, given)
        ]


ANY_BYTES = frozenset({"DIR", "FILE", "FILE SCALE", "HOST", "KEY"})
"""Kinds of values that are paths, or compared byte by byte: they keep the system's bytes, UTF-8 or not."""


def _as_text(option: Option, name: str, given: str) -> str:
    """The value as UTF-8 where the option takes a text: the system's encoding may be another one, as under LC_ALL=C.

    Raises OptionsError for bytes that are no UTF-8.
    """
    if option.metavar in ANY_BYTES or not any("\udc80" <= character <= "\udcff" for character in given):
        return given
    try:
        return os.fsencode(given).decode()
    except UnicodeError:
        raise OptionsError(f"{name}: expected a text in UTF-8") from None


def _check_together(values: dict[str, Any]) -> None:
    """Raises OptionsError for options that exclude each other."""
    type_v = values.get("text.type_v")
    if type_v in QUANTISED and values.get("text.flash_attn") == "off":
        raise OptionsError(f"-ctv {type_v} needs flash attention: leave out -fa off, or take f16, bf16 or f32")
    if values.get("images"):
        _check_images(values)
    if values.get("generation.grammar") and values.get("generation.json_schema"):
        raise OptionsError("--grammar and --json-schema exclude each other: leave out one")
    check_speculation(values)


NOT_WITH_IMAGES = {
    "text.rerank": "--rerank",
    "hosted.enable_infill": "--infill",
    "hosted.slot_save_path": "--slot-save-path",
    "text.tokens_per_second": "-tps",
    "text.control_vectors": "--control-vector",
    "generation.grammar": "--grammar",
    "generation.json_schema": "-j",
    "text.model_draft": "-md",
    "text.lookup_ngram_min": "--lookup-ngram-min",
    "text.lookup_cache_static": "-lcs",
    "text.lookup_cache_dynamic": "-lcd",
}
"""Options that need a language model."""


def _check_images(values: dict[str, Any]) -> None:
    for dest, flag in NOT_WITH_IMAGES.items():
        if values.get(dest):
            raise OptionsError(f"--images and {flag} exclude each other: a model that draws makes no texts or vectors")


def _store(values: dict[str, Any], option: Option, value: Any) -> None:
    if option.accumulates and option.dest in values:
        value = _together(values[option.dest], value)
    values[option.dest] = value


def _together(earlier: Any, value: Any) -> Any:
    """Two uses of an option that accumulates. An empty value is the word `none`, which clears the earlier ones."""
    if isinstance(value, frozenset):
        return earlier | value
    return earlier + value if value else value


def _read_environment(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    for option in OPTIONS:
        text = environ.get(option.env, "") if option.env else ""
        if not text or option.dest in values:
            continue
        parser = option.parse_env or option.parse
        assert parser is not None
        text = _as_text(option, f"environment variable {option.env}", text)
        try:
            values[option.dest] = parser(text)
        except ValueError as error:
            raise OptionsError(f"environment variable {shown(option.env or '', text, '=')}: {error}") from None


def echo(argv: Sequence[str]) -> str:
    """The command line as the first line of output shows it, without secrets."""
    return shlex.join(["llamabox", *masked_words(argv)])


def compose(parsed: OptionValues) -> tuple[TextConfig, ListenConfig, ModelConfig]:
    """The configurations of the text worker, of the port and of the model behind it.

    `TextConfig.model` is empty where none was given.
    """
    sampling = replace(SamplingParams(), **_of(parsed, "sampling"))
    if "sampling.dry_sequence_breakers" in parsed.values and parsed.values.get("escape", True):
        sampling = replace(sampling, dry_sequence_breakers=tuple(map(unescape, sampling.dry_sequence_breakers)))
    text = replace(TextConfig(model=""), **_of(parsed, "text"))
    text = replace(text, n_ubatch=min(text.n_ubatch, text.n_batch), **_placement(parsed, text))
    if text.n_ctx_slot and "text.n_ctx" not in parsed.values:
        text = replace(text, n_ctx=text.n_ctx_slot * text.n_parallel)
    text = with_cpu_weights(with_speculation(text, parsed.values), parsed.values)
    if text.rerank:
        text = replace(text, pooling="rank")
    defaults = GenerationParams(sampling=sampling, drafting=drafting_of(text))
    defaults = replace(defaults, **_of(parsed, "generation"), lora=_first_set(parsed, text))
    if defaults.n_cache_reuse:
        defaults = replace(defaults, cache_prompt=True)
    text = replace(
        text,
        grammar=defaults.grammar,
        json_schema=defaults.json_schema,
        n_threads=text.n_threads if text.n_threads > 0 else processors.n_physical(text.cpu_mask),
        n_threads_batch=_threads_batch(parsed, text),
    )
    hosted = replace(
        ModelConfig(),
        **_of(parsed, "hosted"),
        enable_embeddings=text.embeddings or text.rerank,
        enable_rerank=text.rerank,
        chat=replace(ChatConfig(), **_of(parsed, "chat")),
        n_predict=defaults.n_predict,
        spec_corpus=text.spec_corpus,
        defaults=defaults,
        given=frozenset(_of(parsed, "sampling")),
    )
    return text, replace(ListenConfig(), **_of(parsed, "listen")), hosted


def compose_images(parsed: OptionValues, text: TextConfig, hosted: ModelConfig) -> ImageConfig | None:
    """The configuration of the image worker, which shares fields with the text worker's; None without `--images`.

    Raises OptionsError where no model is named: there is none to fall back on.
    """
    if not parsed.values.get("images"):
        return None
    if not text.model:
        raise OptionsError("--images needs a model that draws: name its file with -m")
    given = _of(parsed, "image")
    if given.get("schedule") == "default":
        given["schedule"] = None
    seed = hosted.defaults.sampling.seed
    return replace(
        ImageConfig(model=text.model),
        **given,
        n_threads=text.n_threads,
        main_gpu=text.main_gpu,
        lora=tuple(path for path, _ in text.lora),
        flash_attn=text.flash_attn == "on",
        mmap=text.mmap,
        n_parallel=text.n_parallel,
        hang_timeout=text.hang_timeout,
        seed=-1 if seed == RANDOM_SEED else seed,
        verbosity=text.verbosity,
        log_colors=text.log_colors,
        log_json=text.log_json,
        native=text.native,
    )


def compose_rpc(parsed: OptionValues, text: TextConfig) -> RpcConfig | None:
    """The configuration of the RPC server; None where none is to run."""
    config = replace(RpcConfig(), **_of(parsed, "rpc"), hang_timeout=text.hang_timeout, native=text.native)
    if not config.port:
        return None
    return replace(config, n_threads=config.n_threads if config.n_threads > 0 else processors.n_physical())


def _first_set(parsed: OptionValues, text: TextConfig) -> LoraSet:
    """The LoRA adapters that hold until a request or POST /lora-adapters says otherwise."""
    if parsed.values.get("lora_init_without_apply"):
        return ()
    return lora_set({adapter_id: scale for adapter_id, (_, scale) in enumerate(text.lora)})


def _threads_batch(parsed: OptionValues, text: TextConfig) -> int:
    """The threads of prompts: those of `-t` where `-tb` was not given, all processors where it is 0 or less."""
    if text.n_threads_batch > 0:
        return text.n_threads_batch
    if "text.n_threads_batch" in parsed.values:
        return processors.n_logical(text.cpu_mask_batch)
    return text.n_threads if text.n_threads > 0 else processors.n_physical(text.cpu_mask_batch)


def _placement(parsed: OptionValues, text: TextConfig) -> dict[str, Any]:
    """The fields of where threads run and how they wait. Those of prompts default to those of decodes."""
    twins = {name: getattr(text, name) for name in ("cpu_mask", "cpu_strict", "prio", "poll")}
    for name in tuple(twins):
        twins[name + "_batch"] = parsed.values.get(f"text.{name}_batch", twins[name])
    for name in ("cpu_mask", "cpu_mask_batch"):
        twins[name] = tuple(sorted(set(twins[name])))
    return twins


def _of(parsed: OptionValues, owner: str) -> dict[str, Any]:
    prefix = owner + "."
    return {dest.removeprefix(prefix): value for dest, value in parsed.values.items() if dest.startswith(prefix)}
