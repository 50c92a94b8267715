from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabox.engine.events import (
    Activity,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Likely,
    PrefillStart,
    Progress,
    Started,
    StepTimes,
    StopType,
    Timings,
    TokenProbs,
    Vector,
)
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.errors import ChannelBroken, InvalidRequest, LlamaboxError, ServerFault, to_wire
from llamabox.imaging import events as imaging
from llamabox.imaging.config import ImageConfig, ImageModelInfo
from llamabox.imaging.job import ImageJob, Pixels
from llamabox.wire import frames
from llamabox.wire.codec import path_of, path_text
from llamabox.wire.common import LoadFailed, read_error
from llamabox.wire.frames import PREFIX, Message, decode, encode
from llamabox.wire.image import ConfigureImages, Told
from llamabox.wire.text import Abort, Call, Configure, Step, Submit, SubmitAll
from llamabox.wire.text_config import ModelInfo, TextConfig

texts = st.text(max_size=20)
ints = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
biases = st.one_of(floats, st.just(-math.inf))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), ints, floats, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
wires = st.fixed_dictionaries({"error": texts, "message": texts, "details": st.dictionaries(texts, values, max_size=2)})
by_annotation: dict[Any, st.SearchStrategy[Any]] = {
    "int": ints,
    "float": floats,
    "str": texts,
    "bool": st.booleans(),
    "str | None": st.none() | texts,
    "int | None": st.none() | ints,
    "list[int]": st.lists(ints, max_size=5),
    "tuple[str, ...]": st.lists(texts, max_size=3).map(tuple),
    "tuple[int, ...]": st.lists(ints, max_size=3).map(tuple),
    "tuple[float, ...]": st.lists(floats, max_size=3).map(tuple),
    "tuple[tuple[str, KvValue], ...]": st.lists(
        st.tuples(texts, st.one_of(ints, floats, st.booleans(), texts)), max_size=3
    ).map(tuple),
    "tuple[tuple[int, float], ...]": st.lists(st.tuples(ints, biases), max_size=3).map(tuple),
    "LoraSet": st.lists(st.tuples(ints, floats), max_size=3).map(tuple),
    "tuple[tuple[str, float], ...]": st.lists(st.tuples(texts, floats), max_size=3).map(tuple),
    "tuple[int, int]": st.tuples(ints, ints),
    "list[dict[str, str]]": st.lists(st.dictionaries(texts, texts, max_size=3), max_size=3),
    "list[dict[str, Any]]": st.lists(st.dictionaries(texts, values, max_size=3), max_size=3),
    "list[tuple[str, list[str | int]]]": st.lists(st.tuples(texts, st.lists(ints | texts, max_size=3)), max_size=3),
    "list[list[str | int]]": st.lists(st.lists(ints | texts, max_size=3), max_size=3),
    "list[str | int]": st.lists(ints | texts, max_size=5),
    "dict[str, Any]": st.dictionaries(texts, values, max_size=3),
    "Any": values,
    "dict[str, Any] | None": st.none() | wires,
    "FinishReason": st.sampled_from(FinishReason),
    "StopType": st.sampled_from(StopType),
}


def made(cls: type[Any], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a dataclass with every field drawn: a new field of a known type is covered without a word here."""
    fields = {
        field.name: given[field.name] if field.name in given else by_annotation[field.type]
        for field in dataclasses.fields(cls)
    }
    return st.builds(cls, **fields)


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    width, height, channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3])))
    n_bytes = width * height * channels
    return Pixels(width, height, channels, draw(st.binary(min_size=n_bytes, max_size=n_bytes)))


by_annotation["Timings"] = made(Timings)
by_annotation["StepTimes | None"] = st.none() | made(StepTimes)
by_annotation["Likely"] = made(Likely, piece=st.binary(max_size=8))
by_annotation["list[Likely]"] = st.lists(by_annotation["Likely"], max_size=3)
by_annotation["list[TokenProbs] | None"] = st.none() | st.lists(made(TokenProbs), max_size=3)
by_annotation["SamplingParams"] = made(SamplingParams)
by_annotation["GenerationParams"] = made(GenerationParams)
by_annotation["TextConfig"] = made(TextConfig)
by_annotation["ModelInfo"] = made(ModelInfo)
by_annotation["Activity | None"] = st.none() | made(Activity)
by_annotation["bytes"] = st.binary(max_size=16)
by_annotation["Activity"] = made(Activity)
by_annotation["list[Vector]"] = st.lists(made(Vector), max_size=5)
by_annotation["list[Event]"] = st.lists(
    st.one_of(*map(made, (PrefillStart, Progress, Started, Delta, Finished)), made(Failed, error=wires)), max_size=5
)
by_annotation["float | None"] = st.none() | floats
by_annotation["bool | None"] = st.none() | st.booleans()
by_annotation["list[str]"] = st.lists(texts, max_size=3)
by_annotation["list[dict[str, Any]]"] = st.lists(st.dictionaries(texts, values, max_size=3), max_size=3)
by_annotation["Pixels | None"] = st.none() | pictures()
by_annotation["ImageJob"] = made(ImageJob, lora=by_annotation["LoraSet"])
by_annotation["ImageConfig"] = made(ImageConfig)
by_annotation["ImageModelInfo"] = made(ImageModelInfo)
told = st.one_of(
    made(imaging.Started),
    made(imaging.Progress),
    made(imaging.Preview),
    made(imaging.Drawn),
    made(imaging.Failed, error=wires),
    made(imaging.Finished),
)
messages: st.SearchStrategy[Message] = st.one_of(
    *(made(cls) for cls in get_args(frames.Message) if cls not in (LoadFailed, Told)),
    made(LoadFailed, error=wires),
    made(Told, event=told),
)


def through(message: Message) -> Message:
    frame = encode(message)
    n_header, n_payload = PREFIX.unpack(frame[: PREFIX.size])
    assert len(frame) == PREFIX.size + n_header + n_payload
    return decode(frame[PREFIX.size : PREFIX.size + n_header], frame[PREFIX.size + n_header :])


def parts(value: Any) -> Any:
    """With the types of everything in it: 1 == 1.0 == True, and a list is no tuple."""
    if dataclasses.is_dataclass(value):
        return (type(value), [parts(getattr(value, field.name)) for field in dataclasses.fields(value)])
    if isinstance(value, list | tuple):
        return (type(value), [parts(item) for item in value])
    if isinstance(value, dict):
        return {key: parts(item) for key, item in value.items()}
    return (type(value), value)


@given(messages)
def test_every_message_comes_out_as_it_went_in(message: Message) -> None:
    assert parts(through(message)) == parts(message)


def test_every_message_has_a_kind_of_its_own() -> None:
    assert set(frames._WIRES) == set(get_args(frames.Message))
    assert len(frames._BY_KIND) == len(frames._WIRES)


@given(st.lists(texts, min_size=2, max_size=4), texts)
def test_lone_surrogates_become_replacement_characters_and_nothing_else_changes(parts: list[str], other: str) -> None:
    call = through(Call(1, "tokenize", {"content": ["\ud800".join(parts), other], other: -1.5}))
    assert call == Call(1, "tokenize", {"content": ["\ufffd".join(parts), other], other: -1.5})


@pytest.mark.parametrize(
    "message",
    [
        Submit(request_id="a", prompt=["\udfff", 3], params=GenerationParams(stop=("\ud800", "b"))),
        Step([Delta("a", 0, "\udc80", [1], Timings()), Delta("b", 0, "right", [2], Timings())]),
        Abort("\ud83d\ude00"),
    ],
)
def test_a_lone_surrogate_kills_no_message(message: Message) -> None:
    assert type(through(message)) is type(message)


def test_a_snapshot_is_sent() -> None:
    timings = Timings(predicted_n=1)
    frame = encode(Step([Delta("a", 0, "x", [1], timings)]))
    timings.predicted_n = 2
    step = decode(frame[PREFIX.size :])
    assert step == Step([Delta("a", 0, "x", [1], Timings(predicted_n=1))])


@pytest.mark.parametrize("bias", [math.inf, math.nan])
def test_a_bias_that_cannot_travel_is_our_bug(bias: float) -> None:
    params = GenerationParams(sampling=SamplingParams(logit_bias=((1, bias),)))
    for message in (Submit(request_id="a", prompt=[], params=params), SubmitAll([("a", [])], params)):
        with pytest.raises(AssertionError, match="bias"):
            encode(message)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'["submit"]',
        b'["submit",{}]',
        b'["step",[null,null,["d"]]]',
        b'["step",[null,null,[]]]',
        b'["step",[null,null,["?",1]]]',
        b'["step",[]]',
        b'["step",[3]]',
        b'["step",[null,3]]',
        b'["step",[null]]',
        b'["step",[null,null,3]]',
        b'["step",[null,[1,2,3,4,5,6]]]',
        b'["abort",{"request_id":"a","more":1}]',
        b'["configure",{"config":[]}]',
        b'["nonsense",{}]',
        b"[[],{}]",
        b'["configure_images",{"config":[]}]',
        b'["draw",[]]',
        b'["draw",{"init":[1,1,3],"mask":null,"control":null}]',
        b'["draw",{"init":3,"mask":null,"control":null}]',
        b'["told",3]',
        b'["told",["queued",{"request_id":"a","place":1}]]',
        b'["told",["drawn",3]]',
        b'["told",["started",{"request_id":"a","index":0}]]',
    ],
)
def test_anything_else_is_refused(header: bytes) -> None:
    with pytest.raises(ChannelBroken, match="no message"):
        decode(header)


def test_no_picture_comes_with_what_has_none() -> None:
    with pytest.raises(ChannelBroken, match="no picture"):
        decode(b'["told",["started",{"request_id":"a"}]]', b"\x89PNG")


def test_the_client_s_own_event_does_not_travel() -> None:
    with pytest.raises(AssertionError, match="queued"):
        encode(Told(imaging.Queued("a", 1)))


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_channel_broken(header: bytes) -> None:
    with pytest.raises(ChannelBroken):
        decode(header)


def test_errors_cross_and_unreadable_ones_are_errors_still() -> None:
    error: LlamaboxError = read_error(to_wire(InvalidRequest("wrong", field="top_k")))
    assert isinstance(error, InvalidRequest)
    assert error.field == "top_k"
    assert type(read_error({})) is ServerFault
    assert type(read_error({"error": "InvalidRequest", "message": "m", "details": {"nonsense": 1}})) is ServerFault


def test_a_frame_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 100)
    with pytest.raises(ServerFault, match="over the 100"):
        encode(Abort("x" * 100))


@pytest.mark.parametrize("name", ["/models/caf\udce9/\udcff.gguf", "/models/\u2028\x85", "a b"])
def test_a_path_of_any_bytes_arrives_as_it_is(name: str) -> None:
    text = Configure(TextConfig(model=name, lora=((name, 0.5),), native=name))
    images = ConfigureImages(ImageConfig(model=name, lora=(name,)))
    for message in (text, images):
        frame = encode(message)
        n_header, _ = frames.frame_length(frame[: PREFIX.size])
        assert decode(frame[PREFIX.size :][:n_header], frame[PREFIX.size + n_header :]) == message
    carried = path_text(name)
    carried.encode()
    assert path_of(carried) == name
