"""Every number of a request is checked before it can reach C: its type, its finiteness, its range."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.checks import present
from llamabox.engine.request import RANDOM_SEED, GenerationParams, SamplingParams
from llamabox.errors import InvalidRequest
from llamabox.server.api.native.fields import native_options
from llamabox.server.api.openai.chat.fields import chat_options
from llamabox.server.api.openai.completions.fields import completion_options
from llamabox.server.fields.logprobs import MAX_PROBS
from llamabox.server.fields.request import Options
from llamabox.server.fields.sampling import LARGE, RULES
from llamabox.server.hosted.config import ModelConfig
from llamabox.wire.text_config import ModelInfo
from tests.server.fake_client import INFO

FLOATS = {
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_p", "min_p", "typical_p", "top_n_sigma",
    "xtc_probability", "xtc_threshold", "repeat_penalty", "frequency_penalty", "presence_penalty", "dry_multiplier",
    "dry_base", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay",
}  # fmt: skip
INTEGERS = {
    "seed", "top_k", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n", "mirostat", "min_keep", "n_predict",
    "max_tokens", "max_completion_tokens", "n_keep", "n_discard", "n", "n_cmpl", "id_slot",
    "t_max_predict_ms", "n_indent", "n_cache_reuse",
}  # fmt: skip
FLAGS = {"stream", "cache_prompt", "ignore_eos", "penalize_nl", "timings_per_token", "return_tokens", "verbose"}


Parser = Callable[[dict[str, Any], ModelConfig, GenerationParams, ModelInfo], Options]
PARSERS: tuple[Parser, ...] = (native_options, completion_options, chat_options)


def parse(body: dict[str, Any], config: ModelConfig | None = None, by: Parser = native_options) -> Options:
    config = config or ModelConfig()
    return by(present(orjson.loads(json.dumps(body))), config, config.defaults, INFO)


def refused(field: str, value: Any, by: Parser = native_options) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse({field: value}, by=by)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"Field '{field}': ")
    return caught.value.message


def test_no_rule_is_without_a_test() -> None:
    lists = {"samplers", "dry_sequence_breakers"}
    assert {rule.field for rule in RULES} <= FLOATS | INTEGERS | FLAGS | lists
    assert {rule.field for rule in RULES} == set(SamplingParams.__dataclass_fields__) - {"logit_bias"}


@pytest.mark.parametrize("field", sorted(FLOATS | INTEGERS | FLAGS))
def test_a_value_of_another_type_names_the_field(field: str) -> None:
    for value in ("1", [1], {"a": 1}, "true"):
        refused(field, value)
    if field in FLAGS:
        refused(field, 1)
        refused(field, 0)
    else:
        refused(field, True)
        refused(field, False)


@pytest.mark.parametrize("field", sorted(INTEGERS))
def test_integers_are_whole_and_bounded(field: str) -> None:
    beyond = (2**31, -(2**63)) if field != "seed" else ()
    for value in (1.5, 2**64, 10**30, -(10**30), *beyond):
        refused(field, value)
    assert parse({field: 1.0}) == parse({field: 1}), "3.0 is the integer 3 to JSON"


@pytest.mark.parametrize("field", sorted(FLOATS))
def test_floats_fit_into_32_bits(field: str) -> None:
    for value in (1e39, -1e39, 1.7e308, 10**30 * 10**30):
        refused(field, value)


@pytest.mark.parametrize("field", sorted(FLOATS | INTEGERS | FLAGS))
def test_null_means_absent(field: str) -> None:
    assert parse({field: None}) == parse({})


@pytest.mark.parametrize(
    ("field", "value", "seen"),
    [
        ("temperature", -1, 0.0), ("temperature", 999999, 999999.0), ("temperature", 1e-30, 0.0),
        ("top_k", -1, 0), ("top_p", 2, 1.0), ("top_p", -0.5, 0.0), ("min_p", 7, 1.0), ("typical_p", 3, 1.0),
        ("xtc_probability", -1, 0.0), ("xtc_threshold", 2, 1.0), ("mirostat", 5, 2), ("mirostat", -1, 0),
        ("dry_base", 0.5, 1.75), ("repeat_last_n", 10**6, INFO.n_ctx), ("dry_penalty_last_n", 10**9, INFO.n_ctx),
        ("repeat_last_n", -1, -1), ("seed", -1, RANDOM_SEED), ("seed", 2**32 - 1, RANDOM_SEED), ("seed", 5, 5),
    ],
)  # fmt: skip
def test_documented_clamps(field: str, value: float, seen: float) -> None:
    assert getattr(parse({field: value}).params.sampling, field) == seen


@pytest.mark.parametrize("value", [-2, 2**32, 2**53 - 1, 2**63 - 1, 2**64 - 1, -(2**31), -(2**63), 2**53 + 0.0])
def test_seeds_of_any_width_are_taken_and_repeatable(value: float) -> None:
    seed = parse({"seed": value}).params.sampling.seed
    assert seed == int(value) % (2**32 - 1) != RANDOM_SEED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repeat_penalty", 0), ("repeat_penalty", -1), ("repeat_penalty", 1e-30), ("repeat_penalty", 1e30),
        ("frequency_penalty", 1e30), ("presence_penalty", -1e30), ("seed", 2**64), ("seed", -(2**64)),
        ("n_keep", -2), ("n_discard", -1), ("n_cache_reuse", -1), ("n_predict", -2), ("max_tokens", -5),
        ("repeat_last_n", -2), ("dry_penalty_last_n", -2),
        ("dry_allowed_length", -1), ("min_keep", -1), ("n", 0), ("n", 3), ("n_cmpl", -1),
        ("id_slot", 2), ("id_slot", -2), ("dynatemp_range", -1), ("dynatemp_exponent", -1), ("dry_multiplier", -1),
        ("mirostat_tau", -1), ("mirostat_eta", -1),
        ("adaptive_target", 1.01), ("adaptive_target", -1e7), ("adaptive_decay", 1), ("adaptive_decay", -0.1),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    refused(field, value)


def test_a_number_of_a_million_tokens_is_the_engines_to_cap() -> None:
    assert parse({"n_predict": 10**6}).params.n_predict == 10**6


@pytest.mark.parametrize(
    ("body", "cap", "n_predict"),
    [
        ({}, -1, -1), ({}, 64, 64), ({"n_predict": 8}, 64, 8), ({"n_predict": 100}, 64, 64),
        ({"n_predict": -1}, 64, 64), ({}, -2, -2), ({"n_predict": -1}, -2, -2), ({"max_tokens": 8}, -2, 8),
        ({"max_tokens": 8}, -1, 8), ({"max_tokens": 8, "max_completion_tokens": 9}, -1, 9),
        ({"max_tokens": 8, "n_predict": 7}, -1, 7), ({"n_predict": 0}, 64, 0), ({"max_tokens": None}, 64, 64),
    ],
)  # fmt: skip
def test_n_predict(body: dict[str, Any], cap: int, n_predict: int) -> None:
    assert parse(body, ModelConfig(n_predict=cap)).params.n_predict == n_predict


@given(
    st.sampled_from(sorted(FLOATS | INTEGERS | {"logit_bias", "stop", "samplers", "dry_sequence_breakers"})),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_whatever_is_sent_is_refused_by_name_or_safe_in_c(field: str, value: object) -> None:
    try:
        options = parse({field: value})
    except InvalidRequest as exc:
        blamed = exc.field
    else:
        blamed = field
        check_safe_in_c(options)
    assert blamed == field


def check_safe_in_c(options: Options) -> None:
    sampling = options.params.sampling
    for name in FLOATS:
        seen = struct.unpack("f", struct.pack("f", getattr(sampling, name)))[0]
        assert math.isfinite(seen)
    assert struct.unpack("f", struct.pack("f", sampling.repeat_penalty))[0] > 0
    assert sampling.temperature == 0 or sampling.temperature >= 1 / LARGE
    assert 0 <= sampling.seed < 2**32
    for count in (sampling.top_k, sampling.min_keep, options.params.n_predict, options.params.n_keep):
        assert -1 <= count < 2**31
    assert max(sampling.repeat_last_n, sampling.dry_penalty_last_n) <= INFO.n_ctx
    assert all(bias == -math.inf or abs(bias) <= 1e12 for _, bias in sampling.logit_bias)
    assert all(not isinstance(token, int) or 0 <= token < INFO.n_vocab for token, _ in sampling.logit_bias)


class TestLogitBias:
    @pytest.mark.parametrize(
        ("value", "entries"),
        [
            ([[5, 1.5], ["a b", -100], [7, False]], [(5, 1.5), ("a b", -100.0), (7, -math.inf)]),
            ({"5": 1, "a b": False, "-": 2}, [(5, 1.0), ("a b", -math.inf), ("-", 2.0)]),
            ([["5", 1]], [("5", 1.0)]),
            ([], []),
            ({}, []),
        ],
    )
    def test_both_forms(self, value: object, entries: list[tuple[int | str, float]]) -> None:
        assert parse({"logit_bias": value}).params.sampling.logit_bias == tuple(entries)

    @pytest.mark.parametrize(
        "value",
        [
            [[1000, 1]], [[-1, 1]], {"1000": 1}, {"-1": 1}, [[True, 1]], [[1.5, 1]], [[1, True]], [[1, "x"]],
            [[1, None]], [[1]], [1], "x", 5, [[1, 2, 3]], [["", 1]], [[1, 1e13]], [[10**30, 1]], {"5": [1]},
            [[5, 1]] * 5000,
        ],
        ids=range(19),
    )  # fmt: skip
    def test_entries_that_are_wrong(self, value: object) -> None:
        refused("logit_bias", value)


class TestStop:
    @pytest.mark.parametrize(
        ("value", "words"), [("x", ("x",)), (["a", "", "b"], ("a", "b")), ("", ()), ([], ()), (None, ())]
    )
    def test_forms(self, value: object, words: tuple[str, ...]) -> None:
        assert parse({"stop": value}).params.stop == words

    @pytest.mark.parametrize("value", [5, [5], {"a": 1}, ["a"] * 300, ["a" * 5000], ["a" * 4096] * 5], ids=range(6))
    def test_wrong_forms(self, value: object) -> None:
        refused("stop", value)

    def test_empty_is_the_command_lines(self) -> None:
        config = ModelConfig(defaults=GenerationParams(stop=("User:",)))
        assert parse({}, config).params.stop == ("User:",)
        assert parse({"stop": ["x"]}, config).params.stop == ("x",)


class TestSamplers:
    @pytest.mark.parametrize(
        ("value", "names"),
        [
            (["top_k", "nucleus", "temp"], ("top_k", "top_p", "temperature")),
            ("kpt", ("top_k", "top_p", "temperature")),
            ("kia", ("top_k", "infill", "adaptive_p")),
            (["infill", "adaptive-p"], ("infill", "adaptive_p")),
            (["what", "top_k"], ("top_k",)),
            ("k?!", ("top_k",)),
            ([], ()),
            ("", ()),
        ],
    )
    def test_names_and_letters(self, value: object, names: tuple[str, ...]) -> None:
        assert parse({"samplers": value}).params.sampling.samplers == names

    @pytest.mark.parametrize("value", [5, [1], ["top_k"] * 40, "k" * 40], ids=range(4))
    def test_what_cannot_be(self, value: object) -> None:
        refused("samplers", value)

    def test_breakers(self) -> None:
        assert parse({"dry_sequence_breakers": ["x"]}).params.sampling.dry_sequence_breakers == ("x",)
        for value in ([], [1], "x", ["x"] * 100, ["x" * 1000]):
            refused("dry_sequence_breakers", value)


class TestUnsupported:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("backend_sampling", True), ("grammar_lazy", True),
        ],
    )  # fmt: skip
    def test_is_refused_by_name_on_every_route(self, field: str, value: object) -> None:
        for by in PARSERS:
            assert "not supported" in refused(field, value, by)

    def test_post_sampling_probs_on_completions(self) -> None:
        refused("post_sampling_probs", True, completion_options)

    def test_top_logprobs_outside_chat(self) -> None:
        for by in (native_options, completion_options):
            assert "not supported" in refused("top_logprobs", 3, by)

    @pytest.mark.parametrize(
        ("field", "value"),
        [("echo", 1), ("best_of", 2), ("suffix", "x"), ("tools", [{}]), ("tool_choice", "required")],
    )
    def test_on_completions(self, field: str, value: object) -> None:
        refused(field, value, completion_options)

    @pytest.mark.parametrize("by", [completion_options, chat_options])
    def test_response_fields_are_the_native_routes_alone(self, by: Parser) -> None:
        assert "not supported" in refused("response_fields", ["content"], by)
        assert parse({"response_fields": []}, by=by) == parse({}, by=by)

    def test_tools_pass_on_completions_where_none_is_to_be_called(self) -> None:
        body = {"tools": [{"type": "function"}], "tool_choice": "none"}
        assert parse(body, by=completion_options) == parse({}, by=completion_options)
        assert "/v1/chat/completions" in refused("tools", [{}], completion_options)

    def test_neutral_values_and_unknown_fields_pass(self) -> None:
        body = {
            "grammar": "", "response_format": {"type": "text"}, "logprobs": False, "n_probs": 0, "lora": [],
            "t_max_predict_ms": -1, "adaptive_target": -1.0, "echo": False, "best_of": 1, "user": "me", "what": [1, 2],
            "json_schema": None, "tools": [], "tool_choice": "none",
        }  # fmt: skip
        for by in PARSERS:
            assert parse(body, by=by) == parse({}, by=by)


class TestEnds:
    def test_least_length_and_stop_tokens(self) -> None:
        for by in PARSERS:
            params = parse({"min_tokens": 3, "stop_token_ids": [5, 2], "max_tokens": 3}, by=by).params
            assert (params.n_least, params.stop_tokens) == (3, (5, 2))
            with pytest.raises(InvalidRequest, match="Field 'min_tokens': must be at most the 2 tokens"):
                parse({"min_tokens": 3, "max_tokens": 2}, by=by)
            refused("min_tokens", -1, by)
            refused("min_tokens", 1.5, by)
            for wrong in (5, "x", [True], ["x"], [-1], [10**9], [1] * 257):
                refused("stop_token_ids", wrong, by)


class TestLogprobs:
    @pytest.mark.parametrize(
        ("by", "body", "n_top", "n_probs"),
        [
            (native_options, {"n_probs": 10}, 10, 10),
            (native_options, {"logprobs": 3}, 3, 3),
            (native_options, {"n_probs": 0, "logprobs": 3}, None, 0),
            (native_options, {"n_probs": MAX_PROBS}, MAX_PROBS, MAX_PROBS),
            (completion_options, {"logprobs": 0}, 0, 1),
            (completion_options, {"logprobs": 5}, 5, 5),
            (completion_options, {"logprobs": 50}, 5, 5),
            (completion_options, {"n_probs": 7}, 7, 7),
            (chat_options, {"logprobs": True}, 1, 1),
            (chat_options, {"logprobs": True, "top_logprobs": 20}, 20, 20),
            (chat_options, {"logprobs": True, "top_logprobs": 0}, 0, 1),
            (chat_options, {"logprobs": False, "top_logprobs": 0}, None, 0),
            (chat_options, {"n_probs": 4}, 4, 4),
        ],
    )
    def test_how_many(self, by: Parser, body: dict[str, Any], n_top: int | None, n_probs: int) -> None:
        options = parse(body, by=by)
        assert (options.n_top, options.params.n_probs) == (n_top, n_probs)

    @pytest.mark.parametrize("by", PARSERS)
    def test_no_request_sees_the_whole_vocabulary(self, by: Parser) -> None:
        refused("n_probs", MAX_PROBS + 1, by)

    @pytest.mark.parametrize("value", [-1, 1.5, True, "3", [3]], ids=str)
    def test_counts_are_whole_numbers(self, value: object) -> None:
        refused("n_probs", value, native_options)
        refused("n_probs", value, chat_options)
        refused("logprobs", value, native_options)
        refused("logprobs", value, completion_options)
        refused("top_logprobs", value, chat_options)

    def test_chat_wants_a_flag_and_a_count_beside_it(self) -> None:
        refused("logprobs", 3, chat_options)
        refused("top_logprobs", 2, chat_options)
        with pytest.raises(InvalidRequest, match="between 0 and 20"):
            parse({"logprobs": True, "top_logprobs": 21}, by=chat_options)


def test_openai_routes_default_to_what_the_user_set_else_to_one() -> None:
    config = ModelConfig(
        defaults=GenerationParams(sampling=SamplingParams(temperature=0.3, top_p=0.5)), given=frozenset({"top_p"})
    )
    assert parse({}, config).params.sampling.temperature == 0.3
    for by in (chat_options, completion_options):
        sampling = parse({}, config, by).params.sampling
        assert (sampling.temperature, sampling.top_p) == (1.0, 0.5)
        assert parse({"temperature": 0.9}, config, by).params.sampling.temperature == 0.9


def test_stream_options_must_be_an_object() -> None:
    refused("stream_options", [])
    refused("stream_options", "x")
    with pytest.raises(InvalidRequest, match="include_usage"):
        parse({"stream_options": {"include_usage": 1}})
