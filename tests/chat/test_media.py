"""Pictures and sound in a conversation: what parts are taken, and where they stand in the prompt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.chat.markers import CutPrompt, cut_at_markers
from llamabox.chat.media_parts import MEDIA_PARTS
from llamabox.chat.messages import Conversation, parse_messages
from llamabox.chat.rendering.sandbox import Renderer
from llamabox.errors import InvalidRequest
from llamabox.media.source import MAX_SOURCES, MediaSource

URI = "data:image/png;base64,AAAA"
PICTURE = {"type": "image_url", "image_url": {"url": URI}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
WORD = {
    "type": "object",
    "properties": {"w": {"type": "string", "description": "d"}},
    "required": ["w"],
    "additionalProperties": False,
}
CALL = {"id": "call12345", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def said(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {
        "role": role,
        "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts],
    }


def parsed(*messages: dict[str, Any]) -> Conversation:
    return parse_messages({"messages": list(messages)})


def one(part: dict[str, Any]) -> MediaSource:
    [source] = parsed(said(part)).media
    return source


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (PICTURE, "image_url.url"),
        ({"type": "image_url", "image_url": URI}, "image_url"),
        ({"type": "image_url", "image_url": {"data": URI}}, "image_url.data"),
        ({"type": "input_image", "image_url": URI}, "image_url"),
        ({"type": "image", "image": URI}, "image"),
        ({"type": "image", "url": URI}, "url"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": URI}}, "source.data"),
        ({"type": "image", "source": {"type": "url", "url": URI}}, "source.url"),
        ({"type": "input_audio", "input_audio": {"data": URI, "format": "mp3"}}, "input_audio.data"),
        ({"type": "input_audio", "input_audio": {"url": URI}}, "input_audio.url"),
        ({"type": "audio_url", "audio_url": {"url": URI}}, "audio_url.url"),
        ({"type": "audio_url", "audio_url": URI}, "audio_url"),
    ],
)
def test_each_form_names_its_bytes(part: dict[str, Any], field: str) -> None:
    kind = "audio" if "audio" in part["type"] else "image"
    assert one(part) == MediaSource(kind=kind, data=URI, field=f"messages[0].content[0].{field}")


@pytest.mark.parametrize(
    ("part", "field", "words"),
    [
        ({"type": "image_url"}, ".image_url", "must be provided"),
        ({"type": "image"}, ".image", "must be provided"),
        ({"type": "image_url", "image_url": 5}, ".image_url", "must be a string or an object"),
        ({"type": "image_url", "image_url": {}}, ".image_url", "must have url or data"),
        ({"type": "image_url", "image_url": {"url": 5}}, ".image_url.url", "must be a string"),
        ({"type": "image_url", "image_url": {"url": URI, "detail": "x"}}, ".image_url.detail", "auto, high, low"),
        ({"type": "input_image", "image_url": URI, "detail": 1}, ".image_url.detail", "must be a string"),
        ({"type": "input_image", "file_id": "f"}, ".file_id", "not kept"),
        ({"type": "input_audio"}, ".input_audio", "must be provided"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, ".input_audio", "must have url or data"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "aac"}}, ".input_audio.format", "wav, mp3"),
        ({"type": "video_url", "video_url": {"url": URI}}, "", "video input is not supported"),
        ({"type": "input_video", "input_video": {}}, "", "video input is not supported"),
        ({"type": "hologram"}, ".type", "unsupported"),
        ({"type": ["image_url"]}, ".type", "unsupported"),
    ],
)
def test_what_is_refused_names_its_field(part: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        parsed(said("hi"), said("see", part))
    assert caught.value.field == f"messages[1].content[1]{field}"


def test_low_detail_bounds_the_picture_and_the_others_do_not() -> None:
    sides = {
        detail: one({"type": "image_url", "image_url": {"url": URI, "detail": detail}}).max_side
        for detail in ("low", "high", "auto", None)
    }
    assert sides == {"low": 512, "high": None, "auto": None, None: None}
    assert one({"type": "input_image", "image_url": URI, "detail": "low"}).max_side == 512


def test_markers_of_two_requests_differ_and_text_has_none() -> None:
    first, second = parsed(said(PICTURE)), parsed(said(PICTURE))
    assert first.marker != second.marker
    assert len(first.marker) == 32
    assert parsed(said("hi")).marker == ""


def test_no_line_break_stands_beside_a_picture() -> None:
    conversation = parsed(said("a", "b", PICTURE, SOUND, "c", "d"))
    assert shape(cut(conversation, conversation.messages[0]["content"])) == ["a\nb", "image", "audio", "c\nd"]


def cut(conversation: Conversation, text: str) -> CutPrompt:
    return cut_at_markers(text, conversation.marker, conversation.media)


def shape(prompt: CutPrompt) -> list[str]:
    return [piece if isinstance(piece, str) else str(piece.kind) for piece in prompt]


@settings(max_examples=50)
@given(st.lists(st.text(max_size=20) | st.sampled_from([PICTURE, SOUND]), min_size=1, max_size=8))
def test_every_part_is_found_again_in_its_order(parts: list[Any]) -> None:
    conversation = parsed(said(*parts))
    content = conversation.messages[0]["content"]
    if not conversation.media:
        assert [part["text"] for part in content] == parts
        return
    assert [piece for piece in cut(conversation, content) if not isinstance(piece, str)] == list(conversation.media)
    texts = "".join(piece for piece in cut(conversation, content) if isinstance(piece, str))
    assert texts.replace("\n", "") == "".join(part for part in parts if isinstance(part, str)).replace("\n", "")


FIELDS = ("image_url", "image", "source", "url", "data", "detail", "input_audio", "audio_url", "format", "file_id")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["low", "wav", URI]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(MEDIA_PARTS)), st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4))
def test_any_part_is_a_medium_or_refused_by_name(kind: str, fields: dict[str, Any]) -> None:
    refused = None
    try:
        source = one({**fields, "type": kind})
    except InvalidRequest as error:
        refused = error
    if refused is not None:
        assert refused.field
        assert refused.field.startswith("messages[0].content[0]")
        assert refused.field in refused.message
    else:
        assert isinstance(source.data, str)
        assert source.kind == ("audio" if "audio" in kind else "image")


def test_a_marker_of_another_request_is_text() -> None:
    earlier = parsed(said(PICTURE)).messages[0]["content"]
    conversation = parsed(said(f"see {earlier}", PICTURE, "media0e <__media__> <image>"))
    assert shape(cut(conversation, conversation.messages[0]["content"])) == [
        f"see {earlier}",
        "image",
        "media0e <__media__> <image>",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "leaves it out"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "shows it 2 times"),
        ("{% for m in messages %}{{ m.content }}{{ m.content | replace('n0e', 'n7e') }}{% endfor %}", "changes what"),
    ],
)
def test_a_template_that_loses_or_repeats_a_picture_is_an_error(source: str, words: str) -> None:
    conversation = parsed(said("a"), said("b", PICTURE, role="assistant"), said("c"))
    text = Renderer(source, "", "", None).render(conversation.messages, None, True, False, {})
    with pytest.raises(InvalidRequest, match=words) as caught:
        cut(conversation, text)
    assert caught.value.field == "messages[1].content[1].image_url.url"


def test_media_of_one_chat_are_bounded() -> None:
    assert len(parsed(said(*[PICTURE] * MAX_SOURCES)).media) == MAX_SOURCES
    with pytest.raises(InvalidRequest, match=f"may have {MAX_SOURCES} media") as caught:
        parsed(said("a"), said(*[PICTURE] * 10_000))
    assert caught.value.field == f"messages[1].content[{MAX_SOURCES}].image_url.url"


CASES = {
    "first": [said(PICTURE, "what?"), said("a", role="assistant"), said("b")],
    "last": [said("a"), said("b", role="assistant"), said("c", PICTURE, SOUND, "d")],
    "alone": [said(PICTURE)],
    "beside an empty text": [said("", PICTURE)],
    "system": [said("s", PICTURE, role="system"), said("q")],
    "assistant": [said("a"), said("see", PICTURE, role="assistant"), said("q")],
    "tool": [
        said("a"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {**said("found", PICTURE, role="tool"), "tool_call_id": "call12345"},
    ],
    "continued": [said("a"), said("see", PICTURE, "it is", role="assistant")],
}


@pytest.mark.parametrize("case", CASES)
def test_real_templates_show_media_in_every_role(renderers: dict[str, Renderer], case: str) -> None:
    for name, renderer in renderers.items():
        chat = parsed(*CASES[case])
        text = renderer.render(chat.messages, None, chat.add_generation_prompt, chat.continues, {})
        found = cut(chat, text)
        assert [piece for piece in found if not isinstance(piece, str)] == list(chat.media), name
        if case == "continued":
            assert str(found[-1]).endswith("it is"), name


def test_a_picture_in_a_tools_answer_stands_in_the_prompt_once(renderers: dict[str, Renderer]) -> None:
    """With each template that shows what tools answer, alone and between texts, and when the chat has gone on."""
    ask = {"role": "user", "content": "Look."}
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    behind = [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": WORD}}]
    for name, renderer in renderers.items():
        for parts in ([PICTURE], ["Here: ", PICTURE, " so."]):
            answer = {**said(*parts, role="tool"), "tool_call_id": CALL["id"]}
            for more in ([], behind):
                conversation = parse_messages({"messages": [ask, call, answer, *more], "tools": tools})
                text = renderer.render(conversation.messages, conversation.tools, True, False, {})
                pieces = cut_at_markers(text, conversation.marker, conversation.media)
                assert sum(isinstance(piece, MediaSource) for piece in pieces) == 1, name
