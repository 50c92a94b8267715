"""A form's grammar allows what its template writes, and what it allows is read as calls that fit the schemas."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from llamabox.chat.custom import InputFormat
from llamabox.chat.formats.detection.edges import TAG
from llamabox.chat.formats.form import Format
from llamabox.chat.formats.grammar.answer import Demand, Thinking, answer_grammar
from llamabox.chat.formats.grammar.tool import Tool
from llamabox.chat.formats.grammar.words import json_rule
from llamabox.grammar import gbnf, guidance
from llamabox.grammar.inputs.inner import input_grammar
from llamabox.grammar.lark import to_lark
from tests.chat.formats.reading import TOOLS, read
from tests.chat.formats.test_failures import GEMMA, GENERIC, HARMONY, HERMES, KIMI, LLAMA, MISTRAL, PYTHON, QWEN

CALLABLE = [
    Tool(tool["function"]["name"], {**tool["function"]["parameters"], "additionalProperties": False}) for tool in TOOLS
]


class Bytes:
    """A vocabulary of all bytes, and of some control tokens."""

    def __init__(self, control: Sequence[str]) -> None:
        self.ids = {text: 256 + i for i, text in enumerate(control)}
        self.tokens = [bytes([i]) for i in range(256)] + [b"\xff" + text.encode() for text in control] + [b"\xff<eos>"]
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None
        self.special_token_ids = list(range(256, len(self.tokens)))

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def tokens_of(self, text: str) -> list[int]:
        found: list[int] = []
        while text:
            special = next((one for one in self.ids if text.startswith(one)), None)
            if special is not None:
                found.append(self.ids[special])
                text = text.removeprefix(special)
            else:
                found += text[0].encode()
                text = text[1:]
        return found

    def text_of(self, tokens: Sequence[int]) -> str:
        told = b"".join(self.tokens[token].removeprefix(b"\xff") for token in tokens)
        return told.decode(errors="replace")


def vocabulary(form: Format) -> Bytes:
    return Bytes([tag for text in form.delimiters() for tag in TAG.findall(text) if "|" in tag or tag.startswith("[")])


def matcher(form: Format, demand: Demand, words: Bytes, inputs: Mapping[str, InputFormat] | None = None) -> LLMatcher:
    """What follows the grammar of an answer. `inputs` are those of its custom tools."""
    grammar = answer_grammar(form, demand, words.ids)
    inner = {one.name: input_grammar(**(inputs or {})[one.tool], is_escaped=one.is_escaped) for one in grammar.inner}
    made = LLMatcher(LLTokenizer(TokenizerWrapper(words)), guidance.answer_grammar(grammar.text, inner))
    assert not made.is_error(), f"{made.get_error()}\n{grammar}"
    return made


FORMS = {
    "hermes": HERMES,
    "qwen": QWEN,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "kimi": KIMI,
    "harmony": HARMONY,
    "python": PYTHON,
    "gemma": GEMMA,
    "generic": GENERIC,
}


def written(
    form: Format, words: Bytes, demand: Demand, seed: int, inputs: Mapping[str, InputFormat] | None = None
) -> str:
    """An answer by chance: what is forced, and else any allowed token, of text rarely."""
    chance, made, found = random.Random(seed), matcher(form, demand, words, inputs), []
    for step in range(3000):
        if made.is_stopped():
            break
        forced = made.compute_ff_tokens()
        if forced:
            token = forced[0]
        else:
            mask = made.compute_bitmask()
            allowed = [i for i in range(len(words.tokens)) if mask[i >> 3] >> (i & 7) & 1]
            if words.eos_token_id in allowed:
                break
            plain = [token for token in allowed if token < 128 and chr(token) in 'abx"}]>\n</1,']
            closing = [token for token in allowed if token >= 256]
            token = chance.choice(closing or plain or allowed) if step < 2000 else (closing or plain or allowed)[0]
        assert made.consume_token(token)
        found.append(token)
    return words.text_of(found)


@pytest.mark.parametrize("name", FORMS)
def test_every_schema_in_a_grammar_tells_the_field_it_comes_from(name: str) -> None:
    """So a refusal can name it. Those within each other, in lists, by any name and of several types are among them."""
    nested = {"type": "object", "properties": {"b": {"type": "number"}}, "additionalProperties": False}
    properties = {"a": nested, "c": {"type": "array", "items": nested}, "d": {"type": ["integer", "null"]}}
    wide: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": {"type": "integer"}}
    tools = tuple(Tool(f"t{i}", wide, field=f"tools[{i}].parameters") for i in range(2))
    final = json_rule({"type": "integer"}, "text.format.schema")
    text = answer_grammar(FORMS[name], Demand(tools=tools, final=final), vocabulary(FORMS[name]).ids).text
    found = [field for field, _ in guidance.schemas_in(text)]
    assert len(found) == text.count("%json ")
    assert set(found) == {"text.format.schema", *(tool.field for tool in tools)}


@pytest.mark.parametrize("name", FORMS)
def test_required_calls_are_valid(name: str) -> None:
    """Whatever a model writes where it must call: its calls are read, and fit the schemas."""
    form = FORMS[name]
    words = vocabulary(form)
    schemas = {tool.name: tool.parameters for tool in CALLABLE}
    for seed in range(6):
        demand = Demand(tools=tuple(CALLABLE), must_call=True, parallel=seed % 2 == 0)
        text = written(form, words, demand, seed)
        found = read(form, [text], tools=TOOLS, prompt="<|start|>assistant" if form is HARMONY else "")
        assert found.calls, text
        for _, called, arguments in found.calls:
            jsonschema.validate(json.loads(arguments), schemas[called])


CALLS: dict[str, str] = {
    "hermes": '<tool_call>\n{"name": "look_up", "arguments": {"word": "x"}}\n</tool_call>',
    "qwen": "<tool_call>\n<function=look_up>\n<parameter=n>\n3\n</parameter>\n<parameter=word>\na\nb\n</parameter>\n"
    "</function>\n</tool_call>",
    "llama": '{"name": "stop", "parameters": {}}',
    "mistral": '[TOOL_CALLS]look_up[ARGS]{"word": "x", "n": 3}',
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.stop:0<|tool_call_argument_begin|>{}"
    "<|tool_call_end|><|tool_calls_section_end|>",
    "harmony": ' to=functions.look_up<|channel|>commentary json<|message|>{"word": "x"}',
    "python": '<|tool_call_start|>[look_up(n=3, word="x"), stop()]<|tool_call_end|>',
    "gemma": '<|tool_call>call:look_up{n:3,word:<|"|>x<|"|>}<tool_call|>',
    "generic": '{"tool_calls": [{"name": "look_up", "arguments": {"word": "x"}}, {"name": "stop", "arguments": {}}]}',
}


@pytest.mark.parametrize("name", FORMS)
def test_text_and_calls_may_come_where_none_is_required(name: str) -> None:
    form = FORMS[name]
    words = vocabulary(form)
    for answer in (said(form, "Four <b>."), CALLS[name]):
        made = matcher(form, Demand(tools=tuple(CALLABLE)), words)
        tokens = words.tokens_of(answer)
        n = made.try_consume_tokens(tokens)
        assert n == len(tokens), f"{words.text_of(tokens[:n])} ¦ {words.text_of(tokens[n:])}"
        assert made.is_accepting(), answer


def said(form: Format, text: str) -> str:
    return f"<|channel|>final<|message|>{text}" if form is HARMONY else text


def test_a_call_that_was_begun_must_be_one() -> None:
    for name in ("hermes", "qwen", "kimi", "gemma"):
        form, words = FORMS[name], vocabulary(FORMS[name])
        opening = words.tokens_of(form.calls.section_open.strip() or form.calls.open.strip())  # type: ignore[union-attr]
        made = matcher(form, Demand(tools=tuple(CALLABLE)), words)
        assert made.try_consume_tokens(opening) == len(opening)
        assert not made.is_accepting()


@pytest.mark.parametrize(
    ("thinking", "answer", "fits"),
    [
        (Thinking.BEGUN, "Hm.\n</think>\n\n" + CALLS["hermes"], True),
        (Thinking.BEGUN, "Hm. " + CALLS["hermes"], True),
        (Thinking.BEGUN, "Hm. </think> Four.", False),
        (Thinking.MAY_BEGIN, "<think>\nHm.\n</think>\n\n" + CALLS["hermes"], True),
        (Thinking.MAY_BEGIN, CALLS["hermes"], True),
        (Thinking.NONE, CALLS["hermes"], True),
        (Thinking.NONE, "<think>", False),
    ],
)
def test_thoughts_before_required_calls(thinking: Thinking, answer: str, *, fits: bool) -> None:
    words = vocabulary(HERMES)
    made = matcher(HERMES, Demand(tools=tuple(CALLABLE), must_call=True, thinking=thinking), words)
    tokens = words.tokens_of(answer)
    assert (made.try_consume_tokens(tokens) == len(tokens) and made.is_accepting()) == fits


def test_a_value_that_fits_a_schema_or_calls() -> None:
    final = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    words = vocabulary(HERMES)
    for answer, fits in (('{"a": 4}', True), (CALLS["hermes"], True), ("Four.", False)):
        made = matcher(HERMES, Demand(tools=tuple(CALLABLE), final=json_rule(final)), words)
        tokens = words.tokens_of(answer)
        assert (made.try_consume_tokens(tokens) == len(tokens) and made.is_accepting()) == fits


def test_what_a_schema_refers_to_is_within_it() -> None:
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "integer"}}}
    words = vocabulary(HERMES)
    for value, fits in (("4", True), ('"x"', False)):
        made = matcher(HERMES, Demand(tools=(Tool("f", {**parameters, "required": ["a"]}),), must_call=True), words)
        tokens = words.tokens_of(f'<tool_call>\n{{"name": "f", "arguments": {{"a": {value}}}}}\n</tool_call>')
        assert (made.try_consume_tokens(tokens) == len(tokens)) == fits


def test_required_arguments_are_enforced_in_any_order() -> None:
    tool = Tool(
        "f",
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"enum": ["x", "y"]}},
            "required": ["a", "b"],
        },
    )
    words = vocabulary(QWEN)
    given: dict[str, Any] = {"a": "p", "b": "1", "c": "x"}
    for keys, fits in (
        ("ab", True),
        ("ba", True),
        ("cab", True),
        ("bca", True),
        ("a", False),
        ("bc", False),
        ("aab", False),
    ):
        arguments = "".join(f"<parameter={key}>\n{given[key]}\n</parameter>\n" for key in keys)
        answer = f"<tool_call>\n<function=f>\n{arguments}</function>\n</tool_call>"
        made = matcher(QWEN, Demand(tools=(tool,), must_call=True), words)
        tokens = words.tokens_of(answer)
        assert (made.try_consume_tokens(tokens) == len(tokens) and made.is_accepting()) == fits, keys


OPEN = {
    "type": "object",
    "properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/$defs/n"}, "c": {"$ref": "#"}},
    "$defs": {"n": {"type": "integer"}},
    "required": ["b"],
    "additionalProperties": {"type": "string"},
}


def tagged(*arguments: tuple[str, str]) -> str:
    told = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments)
    return f"<tool_call>\n<function=f>\n{told}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("name", "answer", "arguments"),
    [
        ("qwen", tagged(("b", "1"), ("x", "2 y"), ("a", "3")), {"b": 1, "x": "2 y", "a": 3}),
        ("qwen", tagged(("b", "1"), ("c", '{"b": 2}')), {"b": 1, "c": {"b": 2}}),
        ("qwen", tagged(("b", "1"), ("x", "1"), ("x", "2")), {"b": 1, "x": "1"}),
        ("qwen", tagged(("x", "1")), None),
        ("qwen", tagged(("b", "x")), None),
        ("qwen", tagged(("b", "1"), ("a", "x")), None),
        ("qwen", tagged(("b", "1"), ("b", "1")), None),
        ("python", '<|tool_call_start|>[f(b=1, x="2", a=3)]<|tool_call_end|>', {"b": 1, "x": "2", "a": 3}),
        ("python", '<|tool_call_start|>[f(x="2", a=3)]<|tool_call_end|>', None),
        ("python", "<|tool_call_start|>[f(b=1, x=2)]<|tool_call_end|>", None),
        ("gemma", '<|tool_call>call:f{x:<|"|>2<|"|>,b:1}<tool_call|>', {"b": 1, "x": "2"}),
        ("gemma", "<|tool_call>call:f{x:2,b:1}<tool_call|>", None),
    ],
)
def test_arguments_that_are_not_listed_or_refer_to_others(
    name: str, answer: str, arguments: dict[str, Any] | None
) -> None:
    form = FORMS[name]
    words = vocabulary(form)
    made = matcher(form, Demand(tools=(Tool("f", OPEN),), must_call=True), words)
    tokens = words.tokens_of(answer)
    assert (made.try_consume_tokens(tokens) == len(tokens) and made.is_accepting()) == (arguments is not None)
    if arguments is not None:
        [(_, _, told)] = read(form, [answer], tools=[{"function": {"name": "f", "parameters": OPEN}}]).calls
        assert json.loads(told) == arguments
        jsonschema.validate(arguments, OPEN)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("qwen", tagged(("x", "1"), ("y", '[true, "b"]'), ("z", "as it is"))),
        ("python", "<|tool_call_start|>[f(x=1, y=[true, \"b\"], z='as it is')]<|tool_call_end|>"),
        ("gemma", '<|tool_call>call:f{x:1,y:[true,<|"|>b<|"|>],z:<|"|>as it is<|"|>}<tool_call|>'),
    ],
)
def test_a_tool_that_lists_no_arguments_may_take_any(name: str, answer: str) -> None:
    form = FORMS[name]
    words = vocabulary(form)
    tool = Tool("f", {"type": "object", "anyOf": [{"properties": {"x": {"type": "integer"}}}]})
    made = matcher(form, Demand(tools=(tool,), must_call=True), words)
    tokens = words.tokens_of(answer)
    assert made.try_consume_tokens(tokens) == len(tokens)
    assert made.is_accepting()
    [(_, _, told)] = read(form, [answer], tools=[{"function": {"name": "f", "parameters": {}}}]).calls
    assert json.loads(told) == {"x": 1, "y": [True, "b"], "z": "as it is"}


@pytest.mark.parametrize("name", ["hermes", "qwen"])
def test_a_required_call_may_be_thought_of_first_unless_the_prompt_has_ended_thoughts(name: str) -> None:
    form = FORMS[name]
    words = vocabulary(form)
    thought, call = "It is Paris.\n</think>\n\n", CALLS[name]

    def allows(thinking: Thinking, text: str) -> bool:
        made = matcher(form, Demand(tools=tuple(CALLABLE), must_call=True, thinking=thinking), words)
        tokens = words.tokens_of(text)
        return made.validate_tokens(tokens) == len(tokens)

    assert allows(Thinking.BEGUN, thought + call)
    assert allows(Thinking.MAY_BEGIN, f"<think>\n{thought}{call}")
    for thinking in Thinking:
        assert not allows(
            thinking, "It is Paris.\n\n" + "a" * 40 if thinking is not Thinking.BEGUN else "x</think>\n\nNo."
        )
    assert allows(Thinking.NONE, call)
    assert not allows(Thinking.NONE, f"<think>\n{thought}{call}")


@pytest.mark.parametrize("name", ["hermes", "qwen"])
@pytest.mark.parametrize("thinking", Thinking)
def test_a_grammar_by_name_says_itself_with_what_a_text_begins(name: str, thinking: Thinking) -> None:
    form = FORMS[name]
    words = vocabulary(form)
    grammar = answer_grammar(form, Demand(tools=(), final="@final", thinking=thinking), words.ids)
    inner = {"final": to_lark(gbnf.parse('root ::= "yes" | "no"', lambda text: None, 1))}
    made = LLMatcher(LLTokenizer(TokenizerWrapper(words)), guidance.answer_grammar(grammar.text, inner))
    assert not made.is_error(), made.get_error()

    def fits(text: str) -> bool:
        one, tokens = made.deep_copy(), words.tokens_of(text)
        return one.try_consume_tokens(tokens) == len(tokens) and one.is_accepting()

    thought = {Thinking.NONE: "", Thinking.MAY_BEGIN: "<think>\nHm.\n</think>\n\n", Thinking.BEGUN: "Hm.\n</think>\n\n"}
    assert fits(f"{thought[thinking]}yes")
    assert not fits(f"{thought[thinking]}maybe")
    assert fits("yes") == fits("no") == (thinking is not Thinking.BEGUN)
    assert not fits(" yes")
