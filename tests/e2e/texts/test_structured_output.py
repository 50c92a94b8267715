"""Answers in a given form, through a real server: schemas made at random, grammars, and what they compose with."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.near_tie import TOLERANCE
from tests.e2e.server_process import ServerProcess

Serve = Callable[..., ServerProcess]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "role": {"enum": ["cook", "pilot", "poet"]},
    },
    "required": ["name", "age", "role"],
    "additionalProperties": False,
}

LIST_GBNF = 'root ::= "(" item (", " item){0,2} ")"\nitem ::= [a-z]{1,6} | root'


@pytest.fixture(scope="module")
def server(serve: Serve) -> ServerProcess:
    return serve("-np", "8", "-c", "8192")


# Each value is bounded in size, so that an answer at temperature 1 comes to its end.
names = st.sampled_from(["a", "name", "first name", 'q"uote', "größe", "n_2", "x-y"])
numbers = st.one_of(
    st.builds(lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
              st.integers(-500, 500), st.integers(0, 900)),
    st.builds(lambda low, span: {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + 2 + span},
              st.integers(-50, 50), st.integers(0, 90)),
    st.just({"type": "integer", "minimum": 0, "maximum": 99, "multipleOf": 5}),
    st.builds(lambda texts: {"type": "number", "enum": texts},
              st.lists(st.floats(-9, 9).map(lambda x: round(x, 2)), min_size=1, max_size=3, unique=True)),
)  # fmt: skip
strings = st.one_of(
    st.builds(lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
              st.integers(0, 4), st.integers(0, 12)),
    st.sampled_from(["^[a-z]{1,8}$", "^[A-Z][a-z]{2,5}( [A-Z][a-z]{2,5}){0,2}$", "^\\d{3}-\\d{4}$",
                     "^(red|green|blue)$", "^[ä-ü]{1,3}x?$"]).map(lambda text: {"type": "string", "pattern": text}),
    st.sampled_from(["date", "ipv4", "uuid"]).map(lambda name: {"type": "string", "format": name}),
)  # fmt: skip
plain = st.one_of(
    numbers,
    strings,
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}]),
    st.lists(st.one_of(st.text("ab é\"\\\n", max_size=5), st.integers(-9, 9), st.none(), st.booleans()),
             min_size=1, max_size=4, unique_by=repr).map(lambda values: {"enum": values}),
    st.one_of(st.integers(), st.just({"k": [1, "two", None]})).map(lambda value: {"const": value}),
    st.sampled_from([{"$ref": "#/$defs/colour"}, {"$ref": "#/$defs/point"}]),
)  # fmt: skip


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    @st.composite
    def build(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(names, values, max_size=4))
        required = [name for name in properties if draw(st.booleans())]
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        if draw(st.booleans()):
            schema["additionalProperties"] = False
        else:
            # Few further ones, or they would go on for ever; they are only counted where all others are required.
            schema["additionalProperties"] = {"type": "boolean"}
            schema["required"] = list(properties)
            schema["maxProperties"] = len(properties) + 1
        return schema

    return build()


def arrays(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.builds(
        lambda items, low, span: {"type": "array", "items": items, "minItems": low, "maxItems": low + span},
        values, st.integers(0, 2), st.integers(0, 2),
    )  # fmt: skip
    tuples = st.lists(values, min_size=1, max_size=3).map(
        lambda items: {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    )
    return lists | tuples


schemas = st.recursive(
    plain,
    lambda values: st.one_of(
        objects(values), arrays(values), st.lists(values, min_size=1, max_size=3).map(lambda each: {"anyOf": each})
    ),
    max_leaves=6,
).map(
    lambda schema: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {
            "colour": {"enum": ["red", "green"]},
            "point": {
                "type": "object",
                "properties": {
                    "x": {"type": "integer", "minimum": 0, "maximum": 9},
                    "next": {"$ref": "#/$defs/colour"},
                },
                "required": ["x"],
                "additionalProperties": False,
            },
        },
        **schema,
    }
)


def assert_same_or_near_tie(tokens: list[int], sampled: dict[str, Any]) -> bool:
    """True when the tokens are equal. Else they part where the model finds both as good, but for the last bits."""
    if tokens == sampled["tokens"]:
        return True
    pairs = zip(tokens, sampled["completion_probabilities"], strict=False)
    token, entry = next((token, entry) for token, entry in pairs if token != entry["id"])
    logprobs = {other["id"]: other["logprob"] for other in entry["top_logprobs"]}
    assert logprobs[token] == pytest.approx(entry["logprob"], abs=TOLERANCE)
    return False


class TestSchemas:
    N = 100

    def test_random_schemas_give_valid_answers(self, server: ServerProcess) -> None:
        """At temperatures 0 and 1, with and without log-probabilities; eight at a time."""
        made: list[dict[str, Any]] = []

        @settings(
            max_examples=self.N, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(schemas)
        def collect(schema: dict[str, Any]) -> None:
            made.append(schema)

        collect()
        assert len(made) >= self.N

        def check(numbered: tuple[int, dict[str, Any]]) -> str:
            i, schema = numbered
            body = {
                "prompt": "Data: ", "n_predict": 500, "seed": i, "temperature": i % 2, "json_schema": schema,
                "n_probs": int(i % 5 == 0),
            }  # fmt: skip
            reply = server.ok("/completion", body)
            for attempt in range(3):  # the name of a further property may run on for ever: another seed ends it
                if reply["stop_type"] == "eos":
                    break
                reply = server.ok("/completion", {**body, "seed": 1000 * attempt + i, "temperature": 1})
            else:
                return f"never complete: {schema} {reply['content']}"
            try:
                jsonschema.validate(json.loads(reply["content"]), schema)
            except (ValueError, jsonschema.ValidationError) as error:
                return f"not valid: {schema} {reply['content']} {error}"
            return ""

        with ThreadPoolExecutor(8) as pool:
            assert [problem for problem in pool.map(check, enumerate(made[: self.N])) if problem] == []

    def test_greedy_answers_are_the_same_with_and_without_forced_tokens(self, server: ServerProcess) -> None:
        """Log-probabilities are what switches forcing off; then every token has its own."""
        n_equal = 0
        for question in ("A cook called", "The poet", "Once", "It"):
            body = {
                "prompt": question,
                "n_predict": 100,
                "temperature": 0,
                "json_schema": PERSON,
                "return_tokens": True,
            }
            forced = server.ok("/completion", body)
            sampled = server.ok("/completion", {**body, "n_probs": 100})
            assert sampled["tokens_predicted"] == len(sampled["tokens"]) == len(sampled["completion_probabilities"])
            assert [entry["id"] for entry in sampled["completion_probabilities"]] == sampled["tokens"]
            assert forced["tokens_predicted"] == len(forced["tokens"])
            for reply in (forced, sampled):
                jsonschema.validate(json.loads(reply["content"]), PERSON)
            n_equal += assert_same_or_near_tie(forced["tokens"], sampled)
        assert n_equal

    def test_every_place_of_a_schema(self, server: ServerProcess) -> None:
        chat = {"messages": [{"role": "user", "content": "A person, please."}], "max_tokens": 200}
        for format_ in (
            {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
            {"type": "json_schema", "schema": PERSON},
            {"type": "json_object", "schema": PERSON},
        ):
            reply = server.ok("/v1/chat/completions", {**chat, "response_format": format_})
            jsonschema.validate(json.loads(reply["choices"][0]["message"]["content"]), PERSON)
        reply = server.ok("/v1/chat/completions", {**chat, "json_schema": PERSON})
        jsonschema.validate(json.loads(reply["choices"][0]["message"]["content"]), PERSON)
        reply = server.ok("/v1/completions", {"prompt": "x", "max_tokens": 200, "json_schema": PERSON})
        jsonschema.validate(json.loads(reply["choices"][0]["text"]), PERSON)
        assert reply["choices"][0]["finish_reason"] == "stop"
        reply = server.ok("/v1/chat/completions", {**chat, "max_tokens": 5, "response_format": {"type": "json_object"}})
        assert reply["choices"][0]["message"]["content"].startswith("{")
        reply = server.ok("/v1/chat/completions", {**chat, "max_tokens": 4, "json_schema": PERSON})
        assert reply["choices"][0]["message"]["content"].startswith('{"name":"')
        assert reply["choices"][0]["finish_reason"] == "length"

    def test_the_openai_client_parses_what_comes(self, server: ServerProcess) -> None:
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
            stream = client.chat.completions.create(
                model="any", max_tokens=200, stream=True, messages=[{"role": "user", "content": "Who?"}],
                response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}},
            )  # fmt: skip
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        jsonschema.validate(json.loads(text), PERSON)


class TestComposition:
    def test_several_choices_each_follow_it_on_their_own(self, server: ServerProcess) -> None:
        body = {"prompt": "x", "n": 4, "temperature": 1, "n_predict": 100, "json_schema": PERSON}
        replies = [choice["text"] for choice in server.ok("/v1/completions", body)["choices"]]
        assert len(replies) == 4
        for reply in replies:
            jsonschema.validate(json.loads(reply), PERSON)
        assert len(set(replies)) > 1

    @pytest.mark.parametrize(
        "extra",
        [
            {"ignore_eos": True},
            {"repeat_penalty": 1.3, "frequency_penalty": 0.5, "dry_multiplier": 0.8},
            {"mirostat": 1},
            {"mirostat": 2},
            {"logit_bias": [["e", -5], ["{", False]]},
            {"n_probs": 2, "post_sampling_probs": True},
            {"samplers": ["xtc", "typ_p"], "xtc_probability": 1.0, "typical_p": 0.5},
        ],
        ids=lambda extra: next(iter(extra)),
    )
    def test_samplers_choose_among_what_it_allows(self, server: ServerProcess, extra: dict[str, Any]) -> None:
        for seed in range(3):
            body = {"prompt": "x", "temperature": 1, "seed": seed, "n_predict": 300, "json_schema": PERSON, **extra}
            reply = server.ok("/completion", body)
            assert reply["stop_type"] == "eos"
            jsonschema.validate(json.loads(reply["content"]), PERSON)

    def test_post_sampling_probabilities_are_of_what_it_allows(self, server: ServerProcess) -> None:
        body = {"prompt": "x", "n_predict": 9, "n_probs": 10, "post_sampling_probs": True, "temperature": 1}
        reply = server.ok("/completion", {**body, "grammar": "root ::= [ab]{4}"})
        for entry in reply["completion_probabilities"]:
            assert all(re.fullmatch("[ab]{1,4}", top["token"]) for top in entry["top_probs"])
            assert sum(top["prob"] for top in entry["top_probs"]) == pytest.approx(1, abs=1e-3)

    def test_stop_strings_and_limits_end_it_anywhere(self, server: ServerProcess) -> None:
        body = {"prompt": "x", "temperature": 0, "n_predict": 50, "grammar": 'root ::= "one two three four five six"'}
        whole = server.ok("/completion", body)
        assert (whole["content"], whole["stop_type"]) == ("one two three four five six", "eos")
        stopped = server.ok("/completion", {**body, "stop": ["three"]})
        assert (stopped["content"], stopped["stop_type"]) == ("one two ", "word")
        cut = server.ok("/completion", {**body, "n_predict": 2})
        assert cut["tokens_predicted"] == 2
        assert cut["stop_type"] == "limit"
        assert whole["content"].startswith(cut["content"])

    def test_an_answer_longer_than_the_context_stays_in_form(self, serve: Serve) -> None:
        """The context is shifted in the midst of forced tokens."""
        small = serve("-np", "1", "-c", "64")
        count = " ".join(str(i) for i in range(100))
        reply = small.ok("/completion", {"prompt": "x", "n_predict": -1, "grammar": f'root ::= "{count}" [a-z]'})
        assert re.fullmatch(count + "[a-z]", reply["content"])
        assert reply["truncated"]

    def test_an_abort_frees_the_slot(self, server: ServerProcess) -> None:
        stream = server.stream("/completion", {"prompt": "x", "n_predict": 3000, "grammar": "root ::= [a-z ]*"})
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        server.wait_idle()


class TestGrammars:
    @pytest.mark.parametrize("temperature", [0, 1, 2])
    @pytest.mark.parametrize(
        ("text", "expression"),
        [
            ('root ::= "yes" | "no, " [a-z]{3,9} "."', r"yes|no, [a-z]{3,9}\."),
            ('root ::= [0-9]{1,3} ("," [0-9]{3}){0,2} " €"', r"[0-9]{1,3}(,[0-9]{3}){0,2} €"),
            ("root ::= [^a-z]{1,6} [a-z]", r"(?s)[^a-z]{1,6}[a-z]"),
            ('root ::= "" | "x"', r"x?"),
        ],
    )
    def test_answers_match(self, server: ServerProcess, text: str, expression: str, temperature: int) -> None:
        for seed in range(4):
            body = {"prompt": "Well,", "temperature": temperature, "seed": seed, "n_predict": 60, "grammar": text}
            reply = server.ok("/completion", {**body, "ignore_eos": seed == 3})
            assert re.fullmatch(expression, reply["content"]), reply["content"]
            assert reply["stop_type"] == "eos"
            assert reply["generation_settings"]["grammar"] == text

    def test_a_recursive_one(self, server: ServerProcess) -> None:
        for seed in range(8):
            body = {"prompt": "(((", "temperature": 1, "seed": seed, "n_predict": 300, "grammar": LIST_GBNF}
            reply = server.ok("/completion", body)["content"]
            while (inner := re.sub(r"\([a-z]{1,6}(, [a-z]{1,6}){0,2}\)", "a", reply)) != reply:
                reply = inner
            assert reply == "a" or reply.startswith("("), reply

    def test_defaults_of_the_command_line(self, serve: Serve, tmp_path: Path) -> None:
        file = tmp_path / "form.gbnf"
        file.write_text('root ::= "left" | "right"\n')
        for words, field in ((("--grammar-file", str(file)), "content"), (("-j", '{"enum":["left"]}'), "content")):
            served = serve(*words)
            assert served.ok("/completion", {"prompt": "x", "n_predict": 9})[field].strip('"') in ("left", "right")
            assert served.ok("/completion", {"prompt": "x", "n_predict": 9, "grammar": 'root ::= "up"'})[field] == "up"
            free = served.ok("/completion", {"prompt": "Once upon a", "n_predict": 3, "temperature": 0, "grammar": ""})
            assert free[field].startswith(" time")

    @pytest.mark.parametrize(
        ("words", "part"),
        [
            (("--grammar", "root ::= ("), "--grammar: expected `)`"),
            (("-j", '{"not":{}}'), '--json-schema: Unimplemented keys: ["not"]'),
        ],
    )
    def test_a_bad_default_keeps_the_server_from_starting(
        self, model: Path, tmp_path: Path, words: tuple[str, ...], part: str
    ) -> None:
        server = ServerProcess(tmp_path / "log", "-m", str(model), *words, wait=False)
        assert server.process.wait(60) == 1
        assert part in server.log
        assert "Traceback" not in server.log


HOSTILE: dict[str, dict[str, Any]] = {
    "deep nesting": {"grammar": "root ::= " + "(" * 100_000},
    "left recursion": {"grammar": 'root ::= root "a" | "b"'},
    "endless recursion": {"grammar": 'root ::= "a" root'},
    "huge bounds": {"grammar": "root ::= ([a-z]{0,1000000}){1000000}"},
    "too huge bounds": {"grammar": "root ::= [a-z]{0,99999999999999999999}"},
    "exponential rules": {"grammar": "root ::= a0 root | .\na60 ::= [ab]?\n"
                          + "".join(f"a{i} ::= a{i + 1} a{i + 1}\n" for i in range(60))},
    "ambiguity": {"grammar": 'root ::= root root root | [a-z]{0,5} | "" | .'},
    "catastrophic pattern": {"json_schema": {"type": "string", "pattern": "^(a|aa|[a-z]*)*(.*a.{30})(.*b.{30})$"}},
    "self-reference": {"json_schema": {"$ref": "#"}},
    "endless object": {"json_schema": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}},
    "combinations": {"json_schema": {"allOf": [{"anyOf": [{"type": "string", "pattern": f"a{i}"}, {"minimum": i}]}
                                               for i in range(30)]}},
    "reference chain": {"json_schema": {"$ref": "#/$defs/a0", "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"}
                                                                        for i in range(7_000)} | {"a7000": {}}}},
    "100,000 values": {"json_schema": {"enum": [f"value {i}" for i in range(100_000)]}},
    "5 MB": {"json_schema": {"description": "x" * 5_000_000}},
    "invalid text": {"grammar": "\ud800 root ::= "},
    "invalid text inside": {"grammar": 'root ::= "\ud800"'},
}  # fmt: skip


def test_hostile_grammars_work_or_are_refused_and_nobody_else_notices(server: ServerProcess) -> None:
    """The faults row "grammar, schema": the same worker afterwards, and a stream that ran all the while is whole."""
    body = {"prompt": "Once upon a time", "n_predict": 400, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    expected, pid, texts = server.ok("/completion", body)["content"], server.worker_pid(), []
    stop = threading.Event()

    def stream_on() -> None:
        while not stop.is_set():
            texts.append("".join(event["content"] for event in server.stream("/completion", body)))

    thread = threading.Thread(target=stream_on)
    thread.start()
    try:
        for name, fields in HOSTILE.items():
            asked = json.dumps({"prompt": "x", "n_predict": 16, **fields}).encode()
            reply = server.http.post("/completion", content=asked, timeout=60)
            assert reply.status_code in (200, 400), (name, reply.text[:300])
            assert len(reply.content) < 10_000 or reply.status_code == 200, name
    finally:
        stop.set()
        thread.join()
    assert server.worker_pid() == pid
    assert texts
    assert all(text[:40] == expected[:40] and len(text) > 400 for text in texts)
    assert server.ok("/completion", {"prompt": "x", "json_schema": {"const": 1}})["content"] == "1"
