"""The table of options, and what words and environment make of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.chat.config import ChatConfig
from llamabox.engine.request import FILL_CONTEXT, RANDOM_SEED, DraftingParams, GenerationParams, SamplingParams
from llamabox.errors import OptionsError
from llamabox.imaging.config import ImageConfig
from llamabox.lending.config import RpcConfig
from llamabox.machine import processors
from llamabox.options import OPTIONS, Option
from llamabox.options.commandline import compose, compose_images, compose_rpc, echo, parse
from llamabox.options.usage import document, help_text
from llamabox.options.values.files import api_keys_of_file, file_text, folder, json_schema_of_file
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from llamabox.wire.text_config import TextConfig

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "options.md"
OWNERS = {
    "text": TextConfig,
    "listen": ListenConfig,
    "hosted": ModelConfig,
    "chat": ChatConfig,
    "generation": GenerationParams,
    "sampling": SamplingParams,
    "image": ImageConfig,
    "rpc": RpcConfig,
}

FIRST_CPU = min(processors.allowed())

VALUES = {
    "--chat-template-kwargs": '{"tone": "warm"}', "--chat-format": "hermes",
    "--reasoning-format": "none", "--reasoning": "off", "--reasoning-effort": "high",
    "--seed": "7", "--samplers": "top_k;temp", "--sampling-seq": "kt", "--chat-template": "llama3",
    "--logit-bias": "5-1.5", "--flash-attn": "off", "--top-nsigma": "2", "--gpu-layers": "3", "--log-colors": "on",
    "--split-mode": "row", "--override-kv": "a.b=int:3", "--cache-type-k": "q8_0", "--cache-type-v": "q8_0",
    "--lora-scaled": "a.gguf 0.5", "--control-vector-scaled": "a.gguf 0.5", "--control-vector-layer-range": "3 5",
    "--cpu-mask": f"{1 << FIRST_CPU:x}", "--cpu-range": f"{FIRST_CPU}-{FIRST_CPU}", "--cpu-strict": "1",
    "--cpu-mask-batch": f"{1 << FIRST_CPU:x}", "--cpu-range-batch": f"-{FIRST_CPU}", "--cpu-strict-batch": "1",
    "--rope-scaling": "yarn", "--image-max-width": "640", "--image-max-height": "640", "--image-sampler": "lcm",
    "--image-schedule": "karras", "--cors-origins": "localhost", "--numa": "isolate", "--pooling": "cls",
    "--rpc-server-host": "127.0.0.1", "--rpc-server-allow": "10.1.0.0/16",
    "--spec": "off", "--spec-type": "ngram-mod", "--spec-corpus": "all", "--cache-type-k-draft": "q8_0",
    "--cache-type-v-draft": "q8_0",
    "--kv-unified-per-slot": "64", "--override-tensor": "a=CPU", "--override-tensor-draft": "a=CPU",
    "--rpc": "host:50052", "--visual-max-image-size": "448",
}  # fmt: skip
"""A value that is no default, for the options where "0.25" or "3" is not one."""


TEXT = TextConfig(model="")


def made(*argv: str, **environ: str) -> tuple[TextConfig, ListenConfig, ModelConfig]:
    return compose(parse(argv, environ))


def refused(*argv: str, **environ: str) -> str:
    with pytest.raises(OptionsError) as caught:
        made(*argv, **environ)
    return caught.value.message


def example(option: Option, tmp_path: Path) -> str:
    flag = option.flags[-1]
    if flag in VALUES:
        return VALUES[flag]
    if option.parse in (file_text, api_keys_of_file, json_schema_of_file):
        path = tmp_path / "file"
        path.write_text("{}" if option.parse is json_schema_of_file else "from the file")
        return str(path)
    if option.parse is folder:
        return str(tmp_path)
    for text in ("3", "0.25", "2", "{}", "some"):
        try:
            assert option.parse
            option.parse(text)
        except ValueError:
            continue
        return text
    raise AssertionError(f"no example value for {flag}")


def values_of(option: Option, tmp_path: Path) -> list[str]:
    """The words that follow its flag."""
    if not option.parse:
        return []
    value = example(option, tmp_path)
    return value.split() if option.n_words > 1 else [value]


def test_every_option_writes_to_a_field_that_exists() -> None:
    actions = {
        "help",
        "images",
        "version",
        "system_info",
        "list_devices",
        "defrag_thold",
        "escape",
        "jinja",
        "lora_init_without_apply",
        *("cpu_moe", "n_cpu_moe", "n_cpu_ffn", "cpu_moe_draft", "n_cpu_moe_draft"),
    }
    for option in OPTIONS:
        owner, _, name = option.dest.partition(".")
        if not name:
            assert owner in actions
            continue
        assert name in {field.name for field in dataclasses.fields(OWNERS[owner])}, option.flags


def test_no_flag_is_there_twice() -> None:
    flags = [flag for option in OPTIONS for flag in option.flags + option.hidden]
    assert len(flags) == len(set(flags))
    assert all(flag.startswith("-") for flag in flags)


@pytest.mark.parametrize(
    "option",
    [o for o in OPTIONS if "." in o.dest and not o.dest.startswith("image.")],
    ids=lambda option: option.flags[-1],
)
def test_every_option_has_an_effect(option: Option, tmp_path: Path) -> None:
    """A switch that spells out the default is checked after its opposite."""
    words = [option.flags[0], *values_of(option, tmp_path)]
    opposite = [o.flags[0] for o in OPTIONS if o.dest == option.dest and o.parse is None and o.const != option.const]
    if option.dest.startswith("rpc."):
        before, after = (compose_rpc(parse(["--rpc-server-port", "1", *given], {}), TEXT) for given in ([], words))
    else:
        before = made("-t", "5", *opposite) if option.parse is None else made("-t", "5")
        after = made("-t", "5", *opposite, *words) if option.parse is None else made("-t", "5", *words)
    assert before != after, option.flags


def painter(*argv: str, **environ: str) -> ImageConfig:
    parsed = parse(["--images", "-m", "model.gguf", *argv], environ)
    text, _, hosted = compose(parsed)
    images = compose_images(parsed, text, hosted)
    assert images is not None
    return images


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.dest.startswith("image.")], ids=lambda option: option.flags[-1]
)
def test_every_option_of_a_server_that_draws_has_an_effect(option: Option, tmp_path: Path) -> None:
    words = [option.flags[0], *values_of(option, tmp_path)]
    changed = {
        name: value for name, value in dataclasses.asdict(painter(*words)).items() if value != getattr(painter(), name)
    }
    assert list(changed) == [option.dest.removeprefix("image.")]
    _, warnings = dataclasses.astuple(parse(words, {}))
    assert warnings == (f"{option.flags[0]} has no effect without --images",)


def test_a_server_that_draws_inherits_what_fits_it() -> None:
    words = ["-t", "3", "-mg", "1", "-np", "5", "-s", "7", "--lora-scaled", "a.gguf", "0.5", "-fa", "--no-mmap"]
    images = painter(*words, "-lv", "2", "--log-json", "--native", "folder")
    assert (images.model, images.n_threads, images.main_gpu, images.n_parallel, images.seed) == (
        "model.gguf",
        3,
        1,
        5,
        7,
    )
    assert (images.lora, images.flash_attn, images.mmap) == (("a.gguf",), True, False)
    assert (images.verbosity, images.log_json, images.native) == (2, True, "folder")
    plain = painter()
    assert (plain.seed, plain.sampler, plain.steps, plain.cfg_scale, plain.schedule) == (-1, None, None, None, None)
    assert painter("--image-schedule", "default").schedule is None
    assert plain.n_threads == processors.n_physical()
    parsed = parse(["-m", "model.gguf"], {})
    text, _, hosted = compose(parsed)
    assert compose_images(parsed, text, hosted) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--rerank"], ["--infill"], ["--slot-save-path", "."], ["-tps", "5"],
        ["--control-vector", "c.gguf"], ["--grammar", 'root ::= "a"'], ["-j", "{}"], ["-md", "d.gguf"],
        ["--lookup-ngram-min", "2"], ["-lcs", "f"], ["-lcd", "f"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_what_does_not_go_with_images_is_named(words: list[str]) -> None:
    with pytest.raises(OptionsError, match=f"--images and {words[0]} exclude each other"):
        parse(["--images", "-m", "m.gguf", *words], {})


def test_vectors_beside_images_are_passed_over() -> None:
    """gpustack started every llama-box with --embeddings, those that draw too."""
    parsed = parse(["--images", "--embeddings", "-m", "m.gguf"], {})
    assert parsed.warnings == ("--embeddings has no effect beside --images: a model that draws makes no vectors",)
    assert not compose(parsed)[0].embeddings


def test_a_server_that_draws_needs_a_model() -> None:
    parsed = parse(["--images"], {})
    text, _, hosted = compose(parsed)
    with pytest.raises(OptionsError, match="-m"):
        compose_images(parsed, text, hosted)


def test_defaults_are_those_of_the_configurations() -> None:
    text, listen, hosted = made()
    n = processors.n_physical()
    assert text == dataclasses.replace(TextConfig(model=""), n_threads=n, n_threads_batch=n)
    drafting = DraftingParams(n_max=text.spec_n_max, p_min=text.spec_p_min)
    assert (listen, hosted) == (ListenConfig(), ModelConfig(defaults=GenerationParams(drafting=drafting)))
    assert (hosted.defaults.sampling.top_p, hosted.defaults.sampling.min_p) == (0.95, 0.05)


def test_an_rpc_server_runs_where_it_has_a_port() -> None:
    assert compose_rpc(parse([], {}), TEXT) is None
    assert compose_rpc(parse(["--rpc-server-host", "::1"], {}), TEXT) is None
    config = compose_rpc(parse([], {"LLAMA_ARG_RPC_SERVER_PORT": "5"}), dataclasses.replace(TEXT, native="a"))
    assert config == RpcConfig(port=5, n_threads=processors.n_physical(), native="a")
    assert "--rpc-server-cache has no effect" in parse(["--rpc-server-cache", "x"], {}).warnings[0]
    assert parse(["--rpc-server-cache", "x", "--rpc-server-port", "1"], {}).warnings == ()
    for words in ("--rpc-server-host here", "--rpc-server-allow 10.0.0.1/8", "--rpc-server-reserve-memory -1"):
        assert "expected" in refused(*words.split())


def test_the_last_one_wins_and_lists_add_up() -> None:
    assert made("--port", "1", "--port", "2")[1].port == 2
    _, listen, hosted = made("-l", "1+2", "-l", "3-0.5", "-l", "4-inf", "--api-key", "a,b", "--api-key", "c")
    assert hosted.defaults.sampling.logit_bias == ((1, 2.0), (3, -0.5), (4, float("-inf")))
    assert listen.api_keys == {"a", "b", "c"}
    *_, hosted = made("--dry-sequence-breaker", r"a\n\"", "--dry-sequence-breaker", ";")
    assert hosted.defaults.sampling.dry_sequence_breakers == ('a\n"', ";")
    for words in (("--no-escape", "--dry-sequence-breaker", r"\n"), ("--dry-sequence-breaker", r"\n", "--no-escape")):
        assert made(*words)[2].defaults.sampling.dry_sequence_breakers == (r"\n",)
        assert made(*words, "-e")[2].defaults.sampling.dry_sequence_breakers == ("\n",)
    assert made("--no-escape") == made(), "the defaults are no text that was typed"
    assert made("--dry-sequence-breaker", "none")[2].defaults.sampling.dry_sequence_breakers == ()


def test_unknown_words_are_passed_over() -> None:
    parsed = parse(["word", "--porrt", "81", "-1", "--port", "82", "--zzzzzzzz"], {})
    assert parsed.values == {"listen.port": 82}
    assert parsed.warnings == (
        "Unknown argument: --porrt; the nearest known one is --port",
        "Unknown argument: --zzzzzzzz",
    )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--port"], "--port PORT"),
        (["--port", "0"], "1 to 65535"),
        (["--port", "65536"], "1 to 65535"),
        (["--port", "8o"], "whole number"),
        (["-np", "0"], "1 to 256"),
        (["-sps", "1.5"], "0 to 1"),
        (["-tps", "-2"], "-1 or more"),
        (["--cache-reuse", "-1"], "0 or more"),
        (["-c", "-1"], "0 or more"),
        (["-c", "99999999999"], "0 or more"),
        (["--temp", "nan"], "finite"),
        (["--temp", "1e400"], "finite"),
        (["--temp", "1e39"], "finite"),
        (["--repeat-penalty", "0"], "more than 0"),
        (["--dry-base", "0.5"], "1 or more"),
        (["--mirostat", "3"], "0 to 2"),
        (["--api-prefix", "/{id}"], "a path of letters"),
        (["--cors-origins", "page.example"], "https://page.example"),
        (["--cors-origins", "http://page.example/path"], "https://page.example"),
        (["--cors-origins", ","], "https://page.example"),
        (["-sm", "tensor"], "none, layer, row"),
        (["-ts", "3,,1"], "a number, as in 3,1"),
        (["-ts", "-1"], "0 or more"),
        (["-mg", "-1"], "0 or more"),
        (["--device", ","], "names separated by commas"),
        (["--device", "GPU0,GPU0"], "each once"),
        (["--rpc", "10.0.0.1"], "HOST:PORT"),
        (["--rpc", "[::1]:50052"], "IPv4"),
        (["--rpc", "a:0"], "1 to 65535"),
        (["--rpc", ",".join(f"host{i}:1" for i in range(17))], "at most 16"),
        (["--override-kv", "a=int"], "KEY=TYPE:VALUE"),
        (["--override-kv", "=int:1"], "KEY=TYPE:VALUE"),
        (["--override-kv", "a=u8:1"], "int, float, bool, str"),
        (["--override-kv", "a=int:9223372036854775808"], "9223372036854775807"),
        (["--override-kv", "a=bool:1"], "true or false"),
        (["--override-kv", "a=float:nan"], "finite"),
        (["--override-kv", f"a=str:{'ü' * 64}"], "127 bytes"),
        (["--override-kv", f"{'k' * 128}=int:1"], "127 bytes"),
        (["--rope-scaling", "longrope"], "none, linear, yarn"),
        (["--rope-scale", "0"], "more than 0"),
        (["-ctk", "q6_k"], "q8_0"),
        (["-ctv", "q8_0", "-fa", "off"], "needs flash attention"),
        (["-C", "0xg"], "hexadecimal"),
        (["-C", "0"], "at least one CPU"),
        (["-C", "1" + "0" * 128], "none above 511"),
        (["-C", "8" + "0" * 127], "there is no CPU 511: this process may use"),
        (["-Cr", "3-2"], "LO not above HI"),
        (["-Cr", "-"], "as 0-3"),
        (["-Cr", "1"], "as 0-3"),
        (["-Crb", "509-511"], "there is no CPU 509-511"),
        (["-Crb", "0-512"], "HI at most 511"),
        (["-Cr", "511-"], "no such CPUs"),
        (["-Cr", "-511"], "no such CPUs"),
        (["--cpu-strict", "2"], "0, 1"),
        (["--prio", "4"], "-1 to 3"),
        (["--prio-batch", "-2"], "-1 to 3"),
        (["--poll", "101"], "0 to 100"),
        (["--numa", "on"], "distribute, isolate, numactl"),
        (["--lora"], "--lora FILE"),
        (["--lora-scaled"], "--lora-scaled FILE SCALE"),
        (["--lora-scaled", "a.gguf"], "two words"),
        (["--lora-scaled", "a.gguf", "--port", "81"], "two words"),
        (["--lora-scaled", "a.gguf", "much"], "a number"),
        (["--lora-scaled", "a.gguf", "nan"], "finite"),
        (["--lora-scaled", "a.gguf:inf"], "two words"),
        (["--lora-scaled", ":0.5"], "two words"),
        (["--control-vector-scaled", "c.gguf", "1e7"], "-1e+06 to 1e+06"),
        (["--control-vector-layer-range", "3"], "two words"),
        (["--control-vector-layer-range", "3", "x"], "whole number"),
        (["--control-vector-layer-range", "5", "3"], "not behind the last"),
        (["-dt", "often"], "a number"),
        (["--seed", "18446744073709551616"], "-9223372036854775808 to 18446744073709551615"),
        (["--keep", "-2"], "-1 or more"),
        (["-l", "12"], "TOKEN_ID"),
        (["-l", "x+1"], "TOKEN_ID"),
        (["-l", "1+nan"], "finite"),
        (["-ngl", "some"], "auto"),
        (["--host", " , "], "address"),
        (["--api-key", ","], "key"),
        (["-j", "[1]"], "object"),
        (["-j", "{"], "JSON"),
        (["--grammar-file", "/nowhere/at/all"], "No such file"),
        (["--grammar", 'root ::= "a"', "-j", "{}"], "exclude each other"),
        (["--api-key-file", "/nowhere/at/all"], "No such file"),
        (["--chat-template-file", "/"], "directory"),
        (["--image-max-batch", "0"], "1 to 64"),
        (["--image-max-width", "255"], "256 to 8192"),
        (["--image-guidance", "-1"], "0 or more"),
        (["--image-strength", "1.1"], "0 to 1"),
        (["--image-sampler", "dpm9"], "euler_a"),
        (["--image-sample-steps", "0"], "1 to 500"),
        (["--image-cfg-scale", "0.9"], "1 or more"),
        (["--image-schedule", "never"], "karras"),
        (["--image-upscale-repeats", "0"], "1 to 4"),
        (["--image-control-strength", "nan"], "finite"),
        (["--image-vae-model"], "--image-vae-model FILE"),
    ],
)
def test_wrong_values_name_the_option_and_what_is_right(words: list[str], part: str) -> None:
    message = refused(*words)
    assert part in message
    assert words[0] in message


def test_clamped_values() -> None:
    sampling = made("--temp", "-1", "--top-p", "7", "--min-p", "-2", "--top-k", "-1")[2].defaults.sampling
    assert (sampling.temperature, sampling.top_p, sampling.min_p, sampling.top_k) == (0, 1, 0, 0)


def test_flash_attention_with_and_without_its_word() -> None:
    assert made("-fa")[0].flash_attn == "on"
    assert made("-fa", "--port", "81")[0].flash_attn == "on"
    for text, meaning in {"on": "on", "off": "off", "AUTO": "auto", "0": "off", "true": "on", "-1": "auto"}.items():
        assert made("-fa", text)[0].flash_attn == meaning
    assert made()[0].flash_attn == "auto"
    assert made(LLAMA_ARG_FLASH_ATTN="1")[0].flash_attn == "on"
    assert made(LLAMA_ARG_FLASH_ATTN="maybe")[0].flash_attn == "off"


def test_the_command_line_beats_the_environment() -> None:
    assert made(LLAMA_ARG_PORT="81")[1].port == 81
    assert made("--port", "82", LLAMA_ARG_PORT="81")[1].port == 82
    assert made("--port", "82", LLAMA_ARG_PORT="unusable")[1].port == 82
    assert made("-nocb", LLAMA_ARG_CONT_BATCHING="1")[0].cont_batching is False
    assert made("-m", "a", LLAMA_ARG_MODEL="b")[0].model == "a"
    assert made(LLAMA_ARG_PORT="")[1].port == 8080


@pytest.mark.parametrize(("text", "on"), [("1", True), ("true", True), ("TRUE", False), ("yes", False), ("0", False)])
def test_switches_in_the_environment(text: str, on: bool) -> None:
    assert made(LLAMA_ARG_SLOTS=text)[2].enable_slots is on
    assert made(LLAMA_ARG_CONT_BATCHING=text)[0].cont_batching is on


def test_a_wrong_number_in_the_environment_names_its_variable() -> None:
    assert "LLAMA_ARG_CTX_SIZE=big" in refused(LLAMA_ARG_CTX_SIZE="big")


def test_samplers() -> None:
    parsed = parse(["--samplers", "top_k;nucleus;bogus; typ-p"], {})
    assert compose(parsed)[2].defaults.sampling.samplers == ("top_k", "top_p", "typ_p")
    assert parsed.warnings == ("--samplers: there is no sampler 'bogus', it is left out",)
    parsed = parse(["--sampling-seq", "kzt"], {})
    assert compose(parsed)[2].defaults.sampling.samplers == ("top_k", "temperature")
    assert "'z'" in parsed.warnings[0]


def test_what_the_server_is_told() -> None:
    for words in (("--cache-reuse", "4"), ("--cache-reuse", "4", "--no-cache-prompt")):
        defaults = made(*words)[2].defaults
        assert (defaults.n_cache_reuse, defaults.cache_prompt) == (4, True)
    text, _, hosted = made("-n", "64", "--temp", "0.5", "-s", "-1", "--keep", "8", "--special", "--no-cache-prompt")
    assert (hosted.n_predict, hosted.defaults.n_predict, hosted.defaults.n_keep) == (64, 64, 8)
    assert (hosted.defaults.special, hosted.defaults.cache_prompt) == (True, False)
    assert hosted.defaults.sampling.seed == RANDOM_SEED
    assert hosted.given == {"temperature", "seed"}
    assert made("-n", "-2")[2].n_predict == made("-n", "-2")[2].defaults.n_predict == FILL_CONTEXT
    assert made("--max-body", "1")[1].max_body == 1 << 20
    assert made("--max-bodies", "99")[1].max_bodies == 99 << 20
    assert made("--max-connections", "99")[1].max_connections == 99
    assert made("--host", "::1, /run/x.sock")[1].hosts == ("::1", "/run/x.sock")
    assert made("-b", "100")[0].n_ubatch == 100
    assert text.n_ubatch == 512


def test_the_door() -> None:
    for text, prefix in {"api": "/api", "/a/b.c/": "/a/b.c", "/": "", "": ""}.items():
        assert made("--api-prefix", text)[1].api_prefix == prefix
    origins = made("--cors-origins", "http://a.example:81, localhost,https://b.example/")[1].cors_origins
    assert origins == ("http://a.example:81", "localhost", "https://b.example")
    _, listen, _ = made(LLAMA_ARG_SSL_KEY_FILE="k", LLAMA_ARG_SSL_CERT_FILE="c", LLAMA_ARG_API_PREFIX="/x")
    assert (listen.ssl_key_file, listen.ssl_cert_file, listen.api_prefix) == ("k", "c", "/x")


def test_loading() -> None:
    text, *_ = made("-ts", "3/1,0.5", "--override-kv", "a=int:-3", "--override-kv", "b.c=float:2", "--rope-scale", "4")
    assert text.tensor_split == (3.0, 1.0, 0.5)
    assert text.kv_overrides == (("a", -3), ("b.c", 2.0))
    assert isinstance(text.kv_overrides[1][1], float)
    assert text.rope_freq_scale == 0.25
    words = ("--override-kv", "k=bool:true", "--override-kv", "k=str:a=b:c", "--override-kv", "k=str:")
    assert made(*words)[0].kv_overrides == (("k", True), ("k", "a=b:c"), ("k", ""))
    assert made("--override-kv", f"{'k' * 127}=str:{'v' * 127}")
    assert made("-ctk", "Q8_0", "-ctv", "iq4_nl", "-fa", "auto")[0].type_v == "iq4_nl"
    assert made("-ctv", "bf16", "-fa", "off")[0].type_v == "bf16"


def test_adapters_add_up_and_take_one_word_or_two() -> None:
    words = ("--lora", "a", "--lora-scaled", "b", "-0.5", "--lora-scaled", "c:d:2", "--lora-scaled", "e", "0")
    text, _, hosted = made(*words)
    assert text.lora == (("a", 1.0), ("b", -0.5), ("c:d", 2.0), ("e", 0.0))
    assert hosted.defaults.lora == ((0, 1.0), (1, -0.5), (2, 2.0))
    text, _, hosted = made(*words, "--lora-init-without-apply")
    assert (len(text.lora), hosted.defaults.lora) == (4, ())


def test_control_vectors() -> None:
    text, *_ = made("--control-vector", "a", "--control-vector-scaled", "b:-1", "--control-vector-scaled", "c", ".5")
    assert text.control_vectors == (("a", 1.0), ("b", -1.0), ("c", 0.5))
    assert text.control_vector_layers == (0, 0)
    for words, layers in {("3", "5"): (3, 5), ("-1", "7"): (0, 7), ("4", "0"): (4, 0)}.items():
        assert made("--control-vector-layer-range", *words)[0].control_vector_layers == layers


@pytest.mark.parametrize(("words", "environ"), [(("-dt", "0.1"), {}), ((), {"LLAMA_ARG_DEFRAG_THOLD": "0.2"})])
def test_what_has_no_effect_any_more_says_so_once(words: tuple[str, ...], environ: dict[str, str]) -> None:
    parsed = parse([*words, *words], environ)
    assert parsed.warnings == ("-dt: the KV memory is not defragmented any more, this option has no effect",)
    assert compose(parsed) == made()


def test_chat_templates_are_jinja_in_any_case() -> None:
    assert parse(["--jinja"], {}).warnings == ()
    told = ("--no-jinja: chat templates are always Jinja programs here, this option has no effect",)
    assert parse(["--jinja", "--no-jinja"], {}).warnings == told
    assert made("--no-jinja") == made("--jinja") == made()


def test_grammars(tmp_path: Path) -> None:
    file = tmp_path / "g.gbnf"
    file.write_text('root ::= "é"\n', encoding="utf-8")
    text, _, hosted = made("--grammar-file", str(file))
    assert text.grammar == hosted.defaults.grammar == file.read_text(encoding="utf-8")
    text, _, hosted = made("-j", ' {"type" : "string"} ')
    assert text.json_schema == hosted.defaults.json_schema == '{"type":"string"}'
    assert made("--grammar", "a", "--grammar", "")[0].grammar == ""


def test_threads() -> None:
    assert made("-t", "7")[0].n_threads_batch == 7
    assert made("-t", "7", "-tb", "3")[0].n_threads_batch == 3
    text, *_ = made("-t", "0", "-tb", "-1")
    assert (text.n_threads, text.n_threads_batch) == (processors.n_physical(), processors.n_logical())
    assert 1 <= processors.n_physical() <= processors.n_logical()


def test_where_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "allowed", lambda: frozenset({0, 1, 2, 5}))
    assert made("-C", "0x26")[0].cpu_mask == (1, 2, 5)
    assert made("-C", "1", "-Cr", "1-2", "-Cr", "2-")[0].cpu_mask == (0, 1, 2, 5), "they add up"
    assert made("-Cr", "-1")[0].cpu_mask == (0, 1)
    assert "there is no CPU 3-4: this process may use 0-2,5" in refused("-Cr", "1-5")
    text, *_ = made("-C", "3", "--cpu-strict", "1", "--prio", "2", "--poll", "0", "-tb", "0")
    assert (text.cpu_mask_batch, text.cpu_strict_batch, text.prio_batch, text.poll_batch) == ((0, 1), True, 2, 0)
    assert text.n_threads <= 2 >= text.n_threads_batch, "no more threads than CPUs, unless they are asked for"
    words = ("-Cb", "4", "--cpu-strict-batch", "0", "--prio-batch", "0", "--poll-batch", "9")
    text, *_ = made("-C", "3", "--cpu-strict", "1", "--prio", "2", "--poll", "0", *words)
    assert (text.cpu_mask_batch, text.cpu_strict_batch, text.prio_batch, text.poll_batch) == ((2,), False, 0, 9)
    assert (text.cpu_mask, text.cpu_strict, text.prio, text.poll) == ((0, 1), True, 2, 0)


def test_keys_are_never_shown() -> None:
    line = echo(["-m", "a b", "--api-key", "secret", "--api-key", "other"])
    assert line == "llamabox -m 'a b' --api-key '***' --api-key '***'"
    assert "secret" not in refused("--api-key", "secret", "--port", "x")


@given(
    st.lists(
        st.sampled_from([f for o in OPTIONS for f in o.flags]) | st.text(max_size=6) | st.integers().map(str),
        max_size=8,
    )
)
def test_any_words_parse_or_are_refused_with_a_sentence(words: list[str]) -> None:
    words = [word for word in words if word not in ("--chat-template-file", "--api-key-file", "--grammar-file")]
    message: Any = "fine"
    try:
        made(*words)
    except OptionsError as error:
        message = error.message
    assert message


def test_help_comes_from_the_table() -> None:
    shown = help_text()
    for option in OPTIONS:
        for flag in option.flags:
            assert flag in shown
    assert "(default: 0.95)" in shown
    assert shown.index("general:") < shown.index("server:") < shown.index("server/completion:")


def test_a_default_that_is_a_value_stands_in_the_code_alone() -> None:
    """The table words a default, as "the model's", or prints the field's: it repeats no value."""
    worded = {option.flags[0]: option.default for option in OPTIONS if isinstance(option.default, str)}
    repeated = [flag for flag, default in worded.items() if re.fullmatch(r"-?[\d.]+", default)]
    assert repeated == []


def test_the_document_of_the_options_is_what_the_table_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "python -m llamabox.options.usage > docs/options.md"


def test_reranking_opens_the_vectors_too_and_decides_the_pooling() -> None:
    text, _, hosted = made("--rerank", "--pooling", "mean")
    assert (text.pooling, hosted.enable_rerank, hosted.enable_embeddings) == ("rank", True, True)
    text, _, hosted = made("--embedding")
    assert (text.pooling, hosted.enable_rerank, hosted.enable_embeddings) == ("unspecified", False, True)
