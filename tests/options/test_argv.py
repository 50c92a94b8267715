"""How words become options: joined values, slips in names, and what must not leave a server open."""

from __future__ import annotations

import pytest

from llamabox.errors import OptionsError
from llamabox.options import OPTIONS
from llamabox.options.commandline import compose, echo, parse
from llamabox.options.refused import CHOOSING, CHOOSING_VARIABLES, REFUSED
from tests.options.test_commandline import made, refused

PROTECTING = sorted(flag for option in OPTIONS if option.protects for flag in option.flags)

OF_LLAMA_SERVER = """
--cpu-moe --n-cpu-moe --override-tensor -ot --kv-offload --mmap --check-tensors --op-offload --no-op-offload --fit
--fit-ctx --fit-target --hf-repo -hf --hf-file --hf-token -hft --model-url --offline --log-disable --log-file
--log-prefix --log-timestamps --reasoning-format --reasoning-budget --jinja --no-jinja --mmproj --mmproj-url
--no-mmproj --mmproj-offload --image-min-tokens --image-max-tokens --override-tensor-draft --model-draft -md
--draft-max --draft-min --draft-p-min --ctx-size-draft --device-draft --gpu-layers-draft --spec-replace --path
--models-dir --models-max --models-autoload --no-models-autoload --props --no-webui --webui --webui-config -sm
--reuse-port --keep-alive --tools --no-slots --slots --ctx-checkpoints --cache-idle-slots --no-cache-idle-slots
--swa-checkpoints --backend-sampling --sleep-idle-seconds --lookup-cache-static --lookup-cache-dynamic --color
--ignore-eos --no-perf --perf --dynatemp-range --dynatemp-exp --no-host --verbose-prompt --prefill-assistant
--tts-use-guide-tokens --direct-io --no-prefill-assistant --skip-chat-parsing --chat-template-kwargs --cache-list
--completion-bash --license --threads-draft --poll-draft --media-path
"""
"""Options of llama-server, of which older and newer llamaboxes do not know some."""


@pytest.mark.parametrize(
    ("joined", "apart"),
    [
        (["--port=81"], ["--port", "81"]),
        (["-m=a=b.gguf"], ["-m", "a=b.gguf"]),
        (["--model=--odd"], ["-m", "--odd"]),
        (["--api-key=k1", "--api-key=-k2"], ["--api-key", "k1", "--api-key", "-k2"]),
        (["--ssl-key-file=k", "--ssl-cert-file=c"], ["--ssl-key-file", "k", "--ssl-cert-file", "c"]),
        (["--lora-scaled=a.gguf", "0.5"], ["--lora-scaled", "a.gguf", "0.5"]),
        (["--lora-scaled=a.gguf:0.5", "--port=81"], ["--lora-scaled", "a.gguf:0.5", "--port", "81"]),
        (["--override-kv=a=int:3"], ["--override-kv", "a=int:3"]),
        (["--flash-attn=off", "-v"], ["-fa", "off", "-v"]),
        (["--grammar="], ["--grammar", ""]),
    ],
)
def test_a_value_may_be_joined_to_its_option(joined: list[str], apart: list[str]) -> None:
    assert parse(joined, {}).values == parse(apart, {}).values
    assert parse(joined, {}).warnings == ()


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("--port=0", "--port 0: expected 1 to 65535"),
        ("--port=", "--port : expected a whole number"),
        ("--api-key=", "expected a key"),
        ("--flash-attn=maybe", "expected on, off, auto"),
        ("--metrics=1", "--metrics takes no value: write --metrics alone"),
        ("--no-mmap=", "takes no value"),
    ],
)
def test_a_joined_value_is_checked_as_any_other(word: str, part: str) -> None:
    assert part in refused(word)


@pytest.mark.parametrize("flag", PROTECTING)
@pytest.mark.parametrize("form", ["{0}s", "{1}", "-{1}", "\u2014{1}", "--{2}", "{3}", "{4}"])
def test_a_slip_in_what_protects_ends_the_start(flag: str, form: str) -> None:
    bare = flag.strip("-")
    slip = form.format(flag, bare, bare.replace("-", "_"), flag.upper(), flag[:-1] + flag[-1] * 2)
    for words in ([f"{slip}=secret"], [slip, "secret"]):
        message = refused(*words)
        assert "protects the server" in message
        assert "--" in message
        assert "secret" not in message.partition(";")[0].replace("secret-file", "")


@pytest.mark.parametrize(
    "word", ["--key", "--auth", "--tls-key", "--password", "--cors", "--cors_origin", "--api-token"]
)
def test_what_sounds_like_protection_ends_the_start(word: str) -> None:
    assert "protects the server" in refused(word, "x")


def test_other_unknown_options_are_a_warning_without_their_value() -> None:
    parsed = parse(["--porrt=secret", "\u2013\u2013threads", "3", "threads=3", "word", "-1", "a=b"], {})
    assert parsed.values == {}
    assert parsed.warnings == (
        "Unknown argument: --porrt; the nearest known one is --port",
        "Unknown argument: \u2013\u2013threads; the nearest known one is --threads",
        "Unknown argument: threads; the nearest known one is --threads",
    )
    known = {flag for option in OPTIONS for flag in option.flags + option.hidden}
    theirs = [flag for flag in OF_LLAMA_SERVER.split() if flag not in known]
    assert len(parse([*theirs, "-m", "my.gguf"], {}).warnings) == len(theirs) > 40, "their start goes on"


def test_an_option_is_no_value_of_the_one_before_it() -> None:
    """`--api-key $KEY --port 81` with an empty KEY made --port the key."""
    message = refused("--api-key", "--port", "81")
    assert message == (
        "--api-key needs a value: --api-key KEY; --port is an option (if it is meant as the value, write "
        "--api-key=--port)"
    )
    assert made("--api-key=--port")[1].api_keys == {"--port"}


@pytest.mark.parametrize(
    "name",
    ["LLAMA_API_KEYS", "LLAMA_ARG_API_KEY", "LLAMA_ARG_API_KEY_FILE", "LLAMABOX_API_KEY", "LLAMA_ARG_SSL_KEYFILE"],
)
def test_a_variable_that_could_be_meant_to_protect_ends_the_start(name: str) -> None:
    with pytest.raises(OptionsError, match=f"no option reads the environment variable {name}; .* protects") as caught:
        parse([], {name: "secret"})
    assert "secret" not in caught.value.message
    assert compose(parse([], {name: ""})) == made()


def test_other_programs_variables_are_theirs() -> None:
    names = (
        "MMPROJ_URL LOG_FILE NO_MMAP KV_OFFLOAD CPU_MOES PORTT HOSTS WEBUI_CONFIG "
        "ENDPOINT_PROPS STATIC_PATH WEBUI OVERRIDE_TENSORS SPEC_DRAFT_HF_REPO CACHE_IDLE_SLOTS OFFLINE"
    )
    environ = {f"LLAMA_ARG_{name}": "1" for name in names.split()}
    environ |= {"LLAMA_CACHE": "x", "LLAMA_LOG_FILE": "x", "LLAMA_OFFLINE": "1", "API_KEYS": "x", "OPENAI_API_KEY": "x"}
    assert compose(parse([], environ)) == made()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--api-key=s1", "-m=a b"], "llamabox '--api-key=***' '-m=a b'"),
        (["--api-key", "-s1", "s2", "-v"], "llamabox --api-key '***' '***' -v"),
        (["--api-token", "s1", "--hf-token=s2", "--password", "s3"],
         "llamabox --api-token '***' '--hf-token=***' --password '***'"),
        (["api-key=s1", "\u2014api-key", "s1"], "llamabox 'api-key=***' \u2014api-key '***'"),
        (["--api-key-file", "keys", "--ssl-key-file=k.pem", "-tps", "5", "--tokens-per-second", "3", "--keep", "4"],
         "llamabox --api-key-file keys --ssl-key-file=k.pem -tps 5 --tokens-per-second 3 --keep 4"),
        (["--override-kv", "a.key=int:3", "-ctk", "f16"], "llamabox --override-kv a.key=int:3 -ctk f16"),
        (["hf_abcdefghijklmnopqrstuv"], "llamabox '***'"),
    ],
)  # fmt: skip
def test_the_printed_command_line_has_no_secret(words: list[str], shown: str) -> None:
    assert echo(words).replace("'\u2014api-key'", "\u2014api-key") == shown


def test_options_of_llama_server_without_a_place_here_say_why() -> None:
    known = {flag for option in OPTIONS for flag in option.flags + option.hidden}
    assert not known & (REFUSED.keys() | CHOOSING.keys())
    for flag, why in {**REFUSED, **CHOOSING}.items():
        assert refused(flag, "3") == f"{flag}: {why}"


@pytest.mark.parametrize("word", CHOOSING)
def test_a_model_that_is_chosen_otherwise_is_never_the_demo_model_in_silence(word: str) -> None:
    beside = parse([word, "somebody/model", "-m", "my.gguf"], {})
    assert beside.values["text.model"] == "my.gguf"
    assert beside.warnings == (f"{word} has no effect beside -m: {CHOOSING[word]}",)
    assert parse([word, "x"], {"LLAMA_ARG_MODEL": "my.gguf"}).values["text.model"] == "my.gguf"


@pytest.mark.parametrize("name", CHOOSING_VARIABLES)
def test_nor_by_a_variable(name: str) -> None:
    with pytest.raises(OptionsError, match=f"^{name}: "):
        parse([], {name: "somebody/model"})
    assert parse(["-m", "my.gguf"], {name: "x"}).warnings[0].startswith(f"{name} has no effect beside -m: ")
    assert parse([], {name: ""}).warnings == ()
