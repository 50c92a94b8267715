"""Every message crosses the process boundary as it is, and nothing else does."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import re
import types
from dataclasses import replace
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine import events
from llamabox.engine.events import Delta, Timings, Vector
from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.errors import ChannelBroken, InvalidRequest, LlamaboxError, ServerFault, to_wire
from llamabox.imaging import events as imaging
from llamabox.imaging.config import ImageConfig
from llamabox.imaging.job import ImageJob, Pixels
from llamabox.wire import frames
from llamabox.wire.codec import NoEncoding
from llamabox.wire.common import LoadFailed, read_error
from llamabox.wire.frames import KINDS, PREFIX, Message, decode, encode, frame_length
from llamabox.wire.image import ConfigureImages, Draw, Told
from llamabox.wire.questions import Tokenise
from llamabox.wire.text import Abort, Call, Configure, Step, Submit, SubmitAll, Vectors
from llamabox.wire.text_config import TextConfig

N_EXAMPLES = 100
"""Of each kind of message and event."""

texts = st.text(max_size=20)
ints = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
paths = st.binary(max_size=20).map(os.fsdecode)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), ints, floats, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    width, height, channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3])))
    n_bytes = width * height * channels
    return Pixels(width, height, channels, draw(st.binary(min_size=n_bytes, max_size=n_bytes)))


PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: ints,
    float: floats,
    str: texts,
    bool: st.booleans(),
    bytes: st.binary(max_size=16),
    types.NoneType: st.none(),
    Any: values,
    Pixels: pictures(),
}


def drawn(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type: a new message, event or field is covered without a word here."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return {"-inf": st.one_of(floats, st.just(-math.inf)), "path": paths}[arguments[1]]
    if origin in (types.UnionType, Union):
        return st.one_of(*map(drawn, arguments))
    if origin is list:
        return st.lists(drawn(arguments[0]), max_size=3)
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(drawn(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(drawn, arguments))
    if origin is dict:
        return st.dictionaries(*map(drawn, arguments), max_size=3)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    if not dataclasses.is_dataclass(hint):
        kinds = (origin or hint).__subclasses__()
        return st.one_of(*map(drawn, {kind.__name__: kind for kind in kinds}.values()))
    hints = get_type_hints(hint, include_extras=True)
    return st.builds(hint, **{field.name: drawn(hints[field.name]) for field in dataclasses.fields(hint)})


def cut(frame: bytes) -> tuple[bytes, bytes]:
    """Header and payload."""
    n_header, n_payload = frame_length(frame[: PREFIX.size])
    assert len(frame) == PREFIX.size + n_header + n_payload
    return frame[PREFIX.size : PREFIX.size + n_header], frame[PREFIX.size + n_header :]


def through(message: Message) -> Message:
    return decode(*cut(encode(message)))


def parts(value: Any) -> Any:
    """With the types of everything in it: 1 == 1.0 == True, and a list is no tuple."""
    if dataclasses.is_dataclass(value):
        return (type(value), [parts(getattr(value, field.name)) for field in dataclasses.fields(value)])
    if isinstance(value, list | tuple):
        return (type(value), [parts(item) for item in value])
    if isinstance(value, dict):
        return {key: parts(item) for key, item in value.items()}
    return (type(value), value)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@given(st.data())
@settings(max_examples=N_EXAMPLES)
def test_every_message_comes_out_as_it_went_in(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(drawn(kind))
    assert parts(through(message)) == parts(message)


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
@given(st.data())
@settings(max_examples=N_EXAMPLES)
def test_every_event_of_a_text_comes_out_as_it_went_in(kind: type[Any], data: st.DataObject) -> None:
    step = Step([data.draw(drawn(kind)), data.draw(drawn(events.Event))])
    assert parts(through(step)) == parts(step)


@pytest.mark.parametrize("kind", get_args(imaging.WorkerEvent), ids=lambda kind: kind.__name__)
@given(st.data())
@settings(max_examples=N_EXAMPLES)
def test_every_event_of_a_picture_comes_out_as_it_went_in(kind: type[Any], data: st.DataObject) -> None:
    told = Told(data.draw(drawn(kind)))
    assert parts(through(told)) == parts(told)


def test_every_message_has_a_name_of_its_own() -> None:
    assert set(KINDS.values()) == set(get_args(Message))


@given(st.lists(texts, min_size=2, max_size=4), texts)
def test_lone_surrogates_become_replacement_characters_and_nothing_else_changes(parts: list[str], other: str) -> None:
    made = Tokenise(["\ud800".join(parts), 3, other], add_special=True, parse_special=False)
    assert through(Call(1, made)) == Call(1, replace(made, content=["\ufffd".join(parts), 3, other]))
    failed = {"\ud800".join(parts): [other], other: -1.5}
    assert through(LoadFailed(failed)) == LoadFailed({"\ufffd".join(parts): [other], other: -1.5})


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
        with pytest.raises(AssertionError, match="let through"):
            encode(message)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'["Submit"]',
        b'["Submit",[]]',
        b'["Submit",[],[]]',
        b'["Submit",{},[]]',
        b'["Step",[[["Delta"]],null,null],[]]',
        b'["Step",[[["Delta",[]]],null,null],[]]',
        b'["Step",[[["PrefillStart",["a",0],3]],null,null],[]]',
        b'["Step",[[["PrefillStart","ab"]],null,null],[]]',
        b'["Step",[[[]],null,null],[]]',
        b'["Step",[[["Nothing",["a",0]]],null,null],[]]',
        b'["Step",[[["Vector",["a",0,1,null]]],null,null],[0]]',
        b'["Step",[[3],null,null],[]]',
        b'["Step",[3,null,null],[]]',
        b'["Step",[{},null,null],[]]',
        b'["Step",[[],null],[]]',
        b'["Step",[[],3,null],[]]',
        b'["Step",[[],null,[1,2,3,4]],[]]',
        b'["Step",[[],null,[1,2,3,4,5,6]],[]]',
        b'["Step",[[],null,null],3]',
        b'["Step",[[],null,null],[1]]',
        b'["Step",[[],null,null],[-1,1]]',
        b'["Step",[[],null,null],["a"]]',
        b'["Abort",["a",1],[]]',
        b'["Abort",{"request_id":"a"},[]]',
        b'["Configure",[],[]]',
        b'["Nothing",[],[]]',
        b"[[],[],[]]",
        b'["ConfigureImages",[[]],[]]',
        b'["Draw",[],[]]',
        b'["Told",[["Queued",["a",1]]],[]]',
        b'["Told",[["Drawn",3]],[]]',
        b'["Told",[["Drawn",["a",0,null,1,0.5,0.5,2]]],[]]',
        b'["Told",[["JobStarted",["a",0]]],[]]',
    ],
)
def test_anything_else_is_refused(header: bytes) -> None:
    with pytest.raises(ChannelBroken, match="no message"):
        decode(header)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@given(st.data())
@settings(max_examples=N_EXAMPLES)
def test_a_message_with_a_value_too_many_or_too_few_is_refused(kind: type[Any], data: st.DataObject) -> None:
    name, row, lengths = orjson.loads(cut(encode(data.draw(drawn(kind))))[0])
    for wrong in ([*row, None], row[:-1], *([[], None] if row else [None]), *([row[0]] if len(row) > 1 else [])):
        if wrong != row:
            with pytest.raises(ChannelBroken):
                decode(orjson.dumps([name, wrong, lengths]), bytes(sum(lengths)))


@pytest.mark.parametrize("n", [-1, 1])
def test_a_payload_that_is_not_what_was_announced_is_refused(n: int) -> None:
    vectors = Vectors([Vector("a", 0, 3, b"1234"), Vector("a", 1, 3, b"5678")], events.Activity())
    header, payload = cut(encode(vectors))
    assert decode(header, payload) == vectors
    with pytest.raises(ChannelBroken, match="announced"):
        decode(header, (payload + b"9")[: len(payload) + n])
    name, row, lengths = orjson.loads(header)
    with pytest.raises(ChannelBroken, match="more bytes"):
        decode(orjson.dumps([name, row, [*lengths, 1]]), payload + b"9")
    with pytest.raises(ChannelBroken, match="StopIteration"):
        decode(orjson.dumps([name, row, lengths[1:]]), payload[4:])


def test_no_bytes_come_with_what_has_none() -> None:
    with pytest.raises(ChannelBroken, match="more bytes"):
        decode(b'["Told",[["JobStarted",["a"]]],[4]]', b"\x89PNG")


def test_a_picture_of_another_size_than_it_says_is_refused() -> None:
    header, payload = cut(encode(Draw(ImageJob(request_id="a", prompt="b", init=Pixels(1, 2, 3, bytes(6))))))
    name, row, _ = orjson.loads(header)
    assert decode(header, payload)
    with pytest.raises(ChannelBroken, match="6 bytes"):
        decode(orjson.dumps([name, row, [5]]), payload[1:])


def test_the_client_s_own_event_does_not_travel() -> None:
    with pytest.raises(TypeError, match="Queued is none of JobStarted"):
        encode(Told(imaging.Queued("a", 1)))  # type: ignore[arg-type]


def test_an_event_of_no_text_does_not_travel() -> None:
    with pytest.raises(TypeError, match=r"Vector.* is none of PrefillStart"):
        encode(Step([Vector("a", 0, 1, b"")]))  # type: ignore[list-item]


@dataclasses.dataclass
class Inner:
    several: list[set[int]]


@dataclasses.dataclass
class Outer:
    name: str
    inner: Inner | None


@dataclasses.dataclass
class Unclear:
    value: str | list[int]


@dataclasses.dataclass
class Misspelt:
    value: Annotated[str, "pfad"]


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (Inner([]), [r"Inner\.several: set\[int\] has no encoding"]),
        (Outer("a", None), [r"Outer\.inner", r"Inner\.several: set\[int\] has no encoding"]),
        (Unclear("a"), [r"Unclear\.value: str \| list\[int\] has no encoding"]),
        (Misspelt("a"), [r"Misspelt\.value: .*pfad.* has no encoding"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_field_that_cannot_travel_is_named_at_first_use(
    message: Any, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, type(message).__name__, type(message))
    for use in (lambda: encode(message), lambda: decode(f'["{type(message).__name__}",[],[]]'.encode())):
        with pytest.raises(NoEncoding) as caught:
            use()
        for name in names:
            assert re.search(name, str(caught.value))


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


@pytest.mark.parametrize("name", ["/models/caf\udce9/\udcff.gguf", "/models/\u2028\x85", "a b", "\0a"])
def test_a_path_of_any_bytes_arrives_as_it_is(name: str) -> None:
    text = Configure(TextConfig(model=name, lora=((name, 0.5),), native=name))
    images = ConfigureImages(ImageConfig(model=name, lora=(name,)))
    for message in (text, images):
        assert through(message) == message
