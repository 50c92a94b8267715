"""Answers that broke other servers: each is read, and nothing of it is lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.chat.formats.form import (
    GENERIC,
    INDEX,
    BracedCalls,
    Channels,
    Format,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
    Thought,
)
from tests.chat.formats.reading import TOOLS, Gathered, read, read_in_all_ways

THINK = Thought(open="<think>\n", close="\n</think>\n\n")
HERMES = Format(
    name="json",
    thought=THINK,
    calls=JsonCalls(open="<tool_call>\n", close="\n</tool_call>", separator="\n"),
    before_calls="\n",
)
QWEN = Format(
    name="tags",
    thought=THINK,
    calls=TaggedCalls(
        section_open="<tool_call>\n",
        open="<function=",
        name_close=">\n",
        key_open="<parameter=",
        key_close=">\n",
        value_close="\n</parameter>",
        value_separator="\n",
        close="\n</function>",
        section_close="\n</tool_call>",
        separator="\n",
        repeats=True,
    ),
)
LLAMA = Format(name="json", calls=JsonCalls(arguments_key="parameters"))
MISTRAL = Format(name="name-json", calls=NamedCalls(open="[TOOL_CALLS]", name_close="[ARGS]"))
KIMI = Format(
    name="name-json",
    calls=NamedCalls(
        section_open="<|tool_calls_section_begin|>",
        open="<|tool_call_begin|>functions.",
        name_close=f":{INDEX}<|tool_call_argument_begin|>",
        close="<|tool_call_end|>",
        section_close="<|tool_calls_section_end|>",
    ),
)
HARMONY = Format(
    name="channels",
    channels=Channels(
        start="<|start|>assistant",
        channel="<|channel|>",
        header_close="<|message|>",
        ends=("<|end|>", "<|return|>", "<|call|>"),
        function="functions.",
    ),
)
PYTHON = Format(name="python", calls=PythonCalls(section_open="<|tool_call_start|>", section_close="<|tool_call_end|>"))
GEMMA = Format(name="braces", calls=BracedCalls(open="<|tool_call>call:", close="<tool_call|>", quote='<|"|>'))
FORMS = (HERMES, QWEN, LLAMA, MISTRAL, KIMI, HARMONY, PYTHON, GEMMA, GENERIC)

HARMONY_PROMPT = "<|start|>assistant"
X = '{"word": "x"}'


def said(text: str = "", *, thought: str = "", calls: tuple[tuple[str, str], ...] = ()) -> Gathered:
    return Gathered(text, thought, [(f"call_{i}", name, arguments) for i, (name, arguments) in enumerate(calls)])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # 1: a malformed header
        ("<|channel|>??<|message|>Four.", said("Four.")),
        ("<|channel|>commentary?<|message|>Four.", said("Four.")),
        ("<|channel|><|channel|>final<|message|>Four.<|return|>", said("Four.")),
        ("<|channel|>analysis<|channel|>final<|message|>Four.", said("Four.")),
        # 2: no markup at all
        ("Four.", said("Four.")),
        ('{"answer": 4}', said('{"answer": 4}')),
        # 3: who is spoken to stands in the channel
        (f"<|channel|>analysis to=functions.look_up code<|message|>{X}<|call|>", said(calls=(("look_up", X),))),
        (f" to=functions.look_up<|channel|>commentary json<|message|>{X}<|call|>", said(calls=(("look_up", X),))),
        (
            f"<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>{X}<|call|>",
            said(calls=(("look_up", X),)),
        ),
        # 4: nobody is spoken to; a role that is doubled
        ("<|channel|>commentary<|message|>I look.<|end|>", said("I look.")),
        ("assistant<|channel|>final<|message|>Four.", said("Four.")),
        # a whole answer, and one that is cut off in a header
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>",
            said("Four.", thought="Hm."),
        ),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.stop<|mess", said(thought="Hm.")),
        ("<|channel|>commentary to=functions.stop<|message|><|call|>", said(calls=(("stop", "{}"),))),
    ],
)
def test_channels(answer: str, expected: Gathered) -> None:
    marks = {text: chr(0xFDD0 + i) for i, text in enumerate(("<|start|>", "<|channel|>", "<|message|>", "<|end|>"))}
    marks |= {text: chr(0xFDD8 + i) for i, text in enumerate(("<|return|>", "<|call|>", "<|constrain|>"))}
    is_cut = answer.endswith("<|mess")  # no token is half there
    if not is_cut:
        assert read_in_all_ways(HARMONY, answer, tools=TOOLS, prompt=HARMONY_PROMPT) == expected
    for token, mark in marks.items():
        answer = answer.replace(token, mark)
    form = HARMONY.with_marks(marks)
    prompt = HARMONY_PROMPT.replace("<|start|>", marks["<|start|>"])
    assert read_in_all_ways(form, answer.removesuffix("<|mess"), tools=TOOLS, prompt=prompt) == expected


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        # 5: a closing tag that is doubled
        (
            QWEN,
            "<tool_call><function=look_up>\n<parameter=word>\nx\n</parameter>\n</parameter>\n</function>\n</tool_call>",
            said(calls=(("look_up", X),)),
        ),
        # the outer tag left out
        (QWEN, "<function=look_up>\n<parameter=word>\nx\n</parameter>\n</function>", said(calls=(("look_up", X),))),
        # 7: text before a call, 17: and behind it
        (
            HERMES,
            f'I look.\n<tool_call>\n{{"name": "look_up", "arguments": {X}}}\n</tool_call>',
            said("I look.", calls=(("look_up", X),)),
        ),
        (
            HERMES,
            f'<tool_call>{{"name": "look_up", "arguments": {X}}}</tool_call> Done.',
            said("Done.", calls=(("look_up", X),)),
        ),
        # 14: text that has the tag of its own form in it
        (
            QWEN,
            "<tool_call>\n<function=look_up>\n<parameter=word>\na </parameter> b\n</parameter></function></tool_call>",
            said(calls=(("look_up", '{"word": "a </parameter> b"}'),)),
        ),
        # 15: a brace too few, a brace too many, no arguments
        (HERMES, f'<tool_call>{{"name": "look_up", "arguments": {X}</tool_call>', said(calls=(("look_up", X),))),
        (HERMES, f'<tool_call>{{"name": "look_up", "arguments": {X}}}}}</tool_call>', said(calls=(("look_up", X),))),
        (HERMES, '<tool_call>{"name": "look_up", "arguments": {"word": "x"</tool_call>', said(calls=(("look_up", X),))),
        (HERMES, '<tool_call>{"name": "stop"}</tool_call>', said(calls=(("stop", "{}"),))),
        (HERMES, '<tool_call>{"name": "stop", "arguments": null}</tool_call>', said(calls=(("stop", "{}"),))),
        (HERMES, '<tool_call>{"arguments": {}, "name": "stop"}</tool_call>', said(calls=(("stop", "{}"),))),
        # 17: a line break within a string; 20: arguments within a string; OpenAI's own form of a call
        (
            HERMES,
            '<tool_call>{"name": "look_up", "arguments": {"word": "a\nb"}}</tool_call>',
            said(calls=(("look_up", '{"word": "a\\nb"}'),)),
        ),
        (
            HERMES,
            '<tool_call>{"name": "look_up", "arguments": "{\\"word\\": \\"x\\"}"}</tool_call>',
            said(calls=(("look_up", X),)),
        ),
        (
            HERMES,
            f'<tool_call>{{"type": "function", "function": {{"name": "look_up", "arguments": {X}}}}}</tool_call>',
            said(calls=(("look_up", X),)),
        ),
        # what only looks like a call is text
        (HERMES, "Write <tool_call> before it.", said("Write <tool_call> before it.")),
        (HERMES, '<tool_call>{"word": "x"}</tool_call>', said('<tool_call>{"word": "x"}</tool_call>')),
        (LLAMA, '{"word": "x"}', said('{"word": "x"}')),
        (LLAMA, '{"name": "nobody", "parameters": {}}', said('{"name": "nobody", "parameters": {}}')),
        (LLAMA, f' {{"name": "look_up", "parameters": {X}}}', said(calls=(("look_up", X),))),
        (
            LLAMA,
            f'{{"name": "look_up", "parameters": {X}}}; {{"name": "stop", "parameters": {{}}}}',
            said(calls=(("look_up", X), ("stop", "{}"))),
        ),
        (
            MISTRAL,
            f"[TOOL_CALLS]look_up[ARGS]{X}[TOOL_CALLS]stop[ARGS]{{}}",
            said(calls=(("look_up", X), ("stop", "{}"))),
        ),
        (
            PYTHON,
            '<|tool_call_start|>[look_up(word="x"), stop()]<|tool_call_end|>Yes.',
            said("Yes.", calls=(("look_up", X), ("stop", "{}"))),
        ),
        (GEMMA, '<|tool_call>call:look_up{word:<|"|>x<|"|>}<tool_call|>', said(calls=(("look_up", '{"word": "x"}'),))),
        (
            GENERIC,
            f'I look.\n{{"tool_calls": [{{"name": "look_up", "arguments": {X}}}]}}',
            said("I look.", calls=(("look_up", X),)),
        ),
    ],
)
def test_calls(form: Format, answer: str, expected: Gathered) -> None:
    assert read_in_all_ways(form, answer, tools=TOOLS) == expected


def test_ids_that_are_made_of_name_and_number() -> None:
    begin = "<|tool_calls_section_begin|><|tool_call_begin|>"
    answer = f"{begin}functions.look_up:7<|tool_call_argument_begin|>{X}<|tool_call_end|>"
    assert read_in_all_ways(KIMI, answer, tools=TOOLS).calls == [("functions.look_up:7", "look_up", X)]


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("<think>\n", "Hm.\n</think>\n\nFour.", said("Four.", thought="Hm.")),
        ("", "<think>\nHm.\n</think>\n\nFour.", said("Four.", thought="Hm.")),
        # 6: a thought that begins where the answer ends
        ("", "Four.\n<think>", said("Four.")),
        # 8: the end of a thought that was not begun; 9: the prompt ended it
        ("", "</think>\n\nFour.", said("Four.")),
        ("<think>\n\n</think>\n\n", "Four.", said("Four.")),
        # 7, 23: a call ends a thought; what is no call does not
        ("<think>\n", '<tool_call>{"name": "stop", "arguments": {}}</tool_call>', said(calls=(("stop", "{}"),))),
        (
            "<think>\n",
            "I need a <tool_call> here.\n</think>\n\nFour.",
            said("Four.", thought="I need a <tool_call> here."),
        ),
        # 8: an end that is spoken of
        (
            "<think>\n",
            "I end with `</think>`, or '</think>'.\n</think>\n\nFour.",
            said("Four.", thought="I end with `</think>`, or '</think>'."),
        ),
        ("<think>\n", 'I say "so"</think>Four.', said("Four.", thought='I say "so"')),
        ("<think>\n", "It is `</think>", said(thought="It is `")),
        # 9: the prompt ends a thought, and the model begins another
        ("<think>\n\n</think>\n\n", "<think>Hm.</think>Four.", said("Four.", thought="Hm.")),
        # cut off
        ("<think>\n", "Hm", said(thought="Hm")),
    ],
)
def test_thoughts(prompt: str, answer: str, expected: Gathered) -> None:
    assert read_in_all_ways(HERMES, answer, tools=TOOLS, prompt=prompt) == expected


def test_values_have_the_types_of_the_schema() -> None:
    """13: numbers are no strings, and strings no numbers."""
    values = {"path": "1", "code": "true", "options": '{"a": 1}', "tags": '["a"]', "flag": "True"}
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    found = read_in_all_ways(QWEN, f"<tool_call>\n<function=write>\n{parameters}</function>\n</tool_call>", tools=TOOLS)
    [(_, _, arguments)] = found.calls
    assert json.loads(arguments) == {"path": "1", "code": "true", "options": {"a": 1}, "tags": ["a"], "flag": True}


@pytest.mark.parametrize("n", range(1, 60))
def test_a_call_that_is_cut_off_is_told_as_far_as_it_came(n: int) -> None:
    """16: at any place; and its arguments are a beginning of JSON."""
    answer = f'<tool_call>\n{{"name": "look_up", "arguments": {X}}}\n</tool_call>'[:n]
    found = read_in_all_ways(HERMES, answer, tools=TOOLS)
    if found.calls:
        [(_, name, arguments)] = found.calls
        assert name == "look_up"
        assert X.startswith(arguments)
        assert found.text == ""
    else:
        assert found.text.strip() == answer.strip()


PIECES = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>"),
    *("[TOOL_CALLS]", "[ARGS]", "<|channel|>", "<|message|>", "<|start|>assistant", "<|end|>", " to=functions.stop"),
    *("<|tool_call_start|>", "<|tool_call>call:", '<|"|>', '{"tool_calls": [', '{"name": "stop", "arguments": {', "}}"),
    *('{"', '": ', '"', "\\", "\n", " ", "word", "stop", "7", "[", "]", "{", "}", "(", ")", ",", "é", ">", "="),
]


@given(st.sampled_from(FORMS), st.lists(st.sampled_from(PIECES), max_size=14), st.sampled_from(["", "<think>\n"]))
@settings(max_examples=400, deadline=None)
def test_no_answer_breaks_a_reader(form: Format, pieces: list[str], prompt: str) -> None:
    """Whatever a model writes: it ends, the parts are well formed, and come out alike however they arrive."""
    whole = read(form, ["".join(pieces)], tools=TOOLS, prompt=prompt)
    assert read(form, pieces, tools=TOOLS, prompt=prompt) == whole
    assert read(form, list("".join(pieces)), tools=TOOLS, prompt=prompt) == whole


@given(st.sampled_from(FORMS), st.text(alphabet="abc \n.,é", max_size=40))
@settings(max_examples=200, deadline=None)
def test_text_is_its_own_only_part(form: Format, text: str) -> None:
    assert read(form, [text], tools=TOOLS) == said(text)


NEMO = Format(
    name="json-array",
    calls=JsonCalls(section_open="[TOOL_CALLS]", separator=", ", is_array=True, id_key="id"),
)


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ('{"name": "look_up", "arguments": {"word": "x"}, "id": "a1B2c3D4e"}', [("a1B2c3D4e", "look_up", X)]),
        (
            '{"name": "stop", "arguments": {}, "id": "a1B2c3D4e"}, {"id": "b1B2c3D4e", "name": "stop"}',
            [("a1B2c3D4e", "stop", "{}"), ("b1B2c3D4e", "stop", "{}")],
        ),
        ('{"name": "look_up", "arguments": {"word": "x"}}', [("call_0", "look_up", X)]),
        ('{"arguments": {"word": "x"}, "name": "look_up", "id": "a1B2c3D4e"}', [("a1B2c3D4e", "look_up", X)]),
    ],
)
def test_an_id_behind_the_arguments_is_the_calls(answer: str, calls: list[tuple[str, str, str]]) -> None:
    assert read_in_all_ways(NEMO, f"[TOOL_CALLS][{answer}]", tools=TOOLS).calls == calls


def test_a_call_that_is_cut_off_before_its_id_is_told() -> None:
    found = read_in_all_ways(NEMO, '[TOOL_CALLS][{"name": "look_up", "arguments": {"word": "x', tools=TOOLS)
    assert found.calls == [("call_0", "look_up", '{"word": "x')]


BARE = {
    "json": Format(name="json", calls=JsonCalls()),
    "json-array": Format(name="json-array", calls=JsonCalls(is_array=True, separator=", ")),
    "name-json": Format(name="name-json", calls=NamedCalls(name_close="\n", separator="\n")),
    "name-json, a colon": Format(name="name-json", calls=NamedCalls(name_close=": ", separator="\n")),
    "tags": Format(
        name="tags",
        calls=TaggedCalls(name_close="\n", key_open="<arg=", key_close=">", value_close="</arg>\n", close="<end>"),
    ),
    "python": Format(name="python", calls=PythonCalls(separator=", ")),
    "braces": Format(name="braces", calls=BracedCalls(quote='"')),
}
BARE_CALLS = {
    "json": '{"name": "look_up", "arguments": {"word": "x"}}',
    "json-array": '[{"name": "look_up", "arguments": {"word": "x"}}, {"name": "stop", "arguments": {}}]',
    "name-json": 'look_up\n{"word": "x"}',
    "name-json, a colon": 'look_up: {"word": "x"}',
    "tags": "look_up\n<arg=word>x</arg>\n<end>",
    "python": '[look_up(word="x"), stop()]',
    "braces": 'look_up{word:"x"}',
}


@pytest.mark.parametrize("kind", BARE)
def test_calls_without_a_mark_before_them_are_the_beginning_of_an_answer(kind: str) -> None:
    """Of tools that there are. All else is text, also where it has the look of a call."""
    calls = (("look_up", X), ("stop", "{}")) if kind in ("json-array", "python") else (("look_up", X),)
    assert read_in_all_ways(BARE[kind], BARE_CALLS[kind], tools=TOOLS) == said(calls=calls)
    if kind in ("json-array", "python"):
        spaced = f"[\n {BARE_CALLS[kind][1:-1]}\n\n]"
        assert read_in_all_ways(BARE[kind], spaced, tools=TOOLS) == said(calls=calls)
        assert read_in_all_ways(BARE[kind], "[\n other(1) ]", tools=TOOLS) == said("[\n other(1) ]")
    unknown = BARE_CALLS[kind].replace("look_up", "other")
    for text in (unknown, f"Or {BARE_CALLS[kind]}", "[1, 2]", "[look", "look", "", " [", "[", "Four. {}"):
        assert read_in_all_ways(BARE[kind], text, tools=TOOLS) == said(text), text


@pytest.mark.parametrize("key", ["Ünit", "kebab-key", "two words", "a.b"])
def test_keyword_arguments_have_the_names_of_properties(key: str) -> None:
    """Which need be no names of Python's, and which the grammar writes as they are."""
    arguments = json.dumps({key: [1, "a=b"], "word": "x"}, ensure_ascii=False)
    answer = f'<|tool_call_start|>[look_up({key}=[1, "a=b"], word="x")]<|tool_call_end|>'
    assert read_in_all_ways(PYTHON, answer, tools=TOOLS) == said(calls=(("look_up", arguments),))
