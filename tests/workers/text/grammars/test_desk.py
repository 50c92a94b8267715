"""The desk that compiles: nothing that a client can write harms the worker, and no request is lost."""

from __future__ import annotations

import json
import os
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.model import Model
from llamabox.demo import ensure_demo_model
from llamabox.engine.request import GenerationParams, InnerGrammar, Request, Words
from llamabox.errors import InvalidRequest, LlamaboxError, NotSupported
from llamabox.grammar.guidance import lark_grammar, schema_grammar
from llamabox.wire.signs.pulse import Pulse
from llamabox.workers.text.grammars.ahead import AheadGrammar
from llamabox.workers.text.grammars.coming import ComingGrammar, GrammarCame
from llamabox.workers.text.grammars.desk import MAX_KEPT, GrammarDesk, GrammarTexts, GrammarTrial
from llamabox.workers.text.grammars.trial import LIMITS, TOO_MUCH_GIVEN
from llamabox.workers.text.helpers import Helpers

Outcome = Request | tuple[str, LlamaboxError]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    native = ffi.load()
    backend.start(native)
    with Model.load(native, ensure_demo_model(progress=False)) as loaded:
        yield loaded


ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"], "additionalProperties": False}


class Desk:
    """A desk and what it gave out."""

    def __init__(self, model: Model) -> None:
        self.out: queue.SimpleQueue[Request | GrammarCame] = queue.SimpleQueue()
        self.compiling: dict[str, Request] = {}
        self.helpers = Helpers(Pulse(cast(Any, None), 0.0))
        self.desk = GrammarDesk(model.vocab, self.helpers, self.out.put)

    def close(self) -> None:
        self.helpers.close()
        self.desk.close()

    def ask(self, request_id: str = "r", **params: Any) -> None:
        self.desk.take(Request(request_id=request_id, prompt=(Words((1,)),), params=GenerationParams(**params)))

    def next(self) -> Outcome:
        """The next request whose grammar is ready, or why it never will be."""
        while True:
            out = self.out.get(timeout=60)
            if isinstance(out, GrammarCame):
                request = self.compiling.pop(out.request_id)
                assert request.grammar is not None
                assert request.grammar.is_ready == (out.error is None)
                return request if out.error is None else (out.request_id, out.error)
            if out.grammar is not None and not isinstance(out.grammar, ComingGrammar):
                return out
            assert not self.compiling, "one at a time"
            self.compiling[out.request_id] = out

    def refused(self, **params: Any) -> InvalidRequest:
        self.ask(**params)
        outcome = self.next()
        assert isinstance(outcome, tuple), "it was let through"
        assert isinstance(outcome[1], InvalidRequest)
        return outcome[1]


@pytest.fixture
def desk(model: Model) -> Iterator[Desk]:
    made = Desk(model)
    yield made
    made.close()


def test_a_grammar_is_compiled_once_and_shared(desk: Desk) -> None:
    for i in range(3):
        desk.ask(str(i), grammar='root ::= "a" | "b"')
    grammars = [outcome.grammar for _ in range(3) if isinstance(outcome := desk.next(), Request)]
    assert isinstance(grammars[0], ComingGrammar)
    assert grammars[1] is not None
    assert grammars[0]._grammar is grammars[1] is grammars[2]


def test_no_grammar_waits_for_a_vocabulary_that_was_made_ready(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.desk.make_ready()
    desk.helpers.grammars.submit(int).result(60)  # whatever came before is done
    monkeypatch.setattr("llamabox.workers.text.grammars.desk.guidance_tokenizer", None)
    monkeypatch.setattr("llamabox.workers.text.grammars.desk.guidance_pieces", None)
    desk.ask(grammar='root ::= "a"')
    assert isinstance(desk.next(), Request)


def test_a_model_without_a_vocabulary_says_so_to_whoever_wants_a_grammar(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> list[bytes]:
        raise NotSupported("the model has no vocabulary")

    monkeypatch.setattr("llamabox.workers.text.grammars.desk.guidance_pieces", none)
    desk.desk.make_ready()
    desk.ask(grammar='root ::= "a"')
    outcome = desk.next()
    assert isinstance(outcome, tuple)
    assert isinstance(outcome[1], NotSupported)


def test_a_request_is_on_its_way_while_its_grammar_is_compiled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Future[None] = Future()
    compiled = desk.desk._compiler.compile

    def slowly(*texts: Any) -> AheadGrammar:
        gate.result()
        return compiled(*texts)

    monkeypatch.setattr(desk.desk._compiler, "compile", slowly)
    for i in range(2):
        desk.ask(str(i), grammar=f'root ::= "{i}"')
    first = desk.out.get(timeout=60)
    assert isinstance(first, Request)
    assert isinstance(first.grammar, ComingGrammar)
    assert not first.grammar.is_ready
    assert desk.out.empty(), "the other one would hold a slot in vain"
    gate.set_result(None)
    assert desk.out.get(timeout=60) == GrammarCame("0")
    assert first.grammar.is_ready
    assert first.grammar.start().forced(8)
    assert isinstance(desk.next(), Request)


def test_those_least_lately_asked_for_are_given_up(desk: Desk) -> None:
    for i in range(MAX_KEPT + 1):
        desk.ask(grammar=f'root ::= "{i}"')
        desk.next()
    assert len(desk.desk._kept) == MAX_KEPT
    assert GrammarTexts('root ::= "0"') not in desk.desk._kept


def test_what_was_forgotten_while_it_waited_is_not_delivered(desk: Desk) -> None:
    gate: Future[None] = Future()
    desk.desk._worker.submit(gate.result)  # the desk is busy
    for request_id in ("first", "gone", "stays"):
        desk.ask(request_id, grammar='root ::= "a"')
    first = desk.out.get(timeout=60)
    assert isinstance(first, Request)
    assert first.request_id == "first", "nobody is before it"
    assert desk.out.empty(), "the others would hold slots in vain"
    desk.desk.forget("gone")
    gate.set_result(None)
    assert desk.out.get(timeout=60) == GrammarCame("first")
    outcome = desk.next()
    assert isinstance(outcome, Request)
    assert outcome.request_id == "stays"
    assert desk.out.empty()


@pytest.mark.parametrize("schema", [ENDLESS, {"const": "x" * 40_000}], ids=["endless", "long"])
def test_the_trial_refuses_a_text_that_is_given_without_end(schema: dict[str, Any]) -> None:
    trial = GrammarTrial()
    try:
        assert trial.run(schema_grammar(json.dumps(schema))) == TOO_MUCH_GIVEN
    finally:
        trial.close()


def test_the_reason_names_the_field(desk: Desk) -> None:
    assert "'json_schema': Unimplemented" in desk.refused(json_schema='{"not":{}}').message
    assert desk.refused(grammar='root ::= "a').field == "grammar"
    told = desk.refused(json_schema='{"not":{}}', form_field="text.format.schema")
    assert (told.field, "'text.format.schema': Unimplemented" in told.message) == ("text.format.schema", True)
    assert desk.refused(grammar="root ::= nowhere", form_field="response_format.grammar").field == (
        "response_format.grammar"
    )
    with pytest.raises(InvalidRequest):
        desk.desk.prepare("", '{"not":{}}')


def test_a_plain_answer_is_compiled_without_a_trial_and_refused_as_after_one(desk: Desk) -> None:
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    told = {"$comment": "tools[0].function.parameters", "x-guidance": {"whitespace_flexible": False}}
    good, bad = (json.dumps({**closed, "required": required, **told}) for required in ([], ["a"]))
    desk.ask(answer_grammar=f"start: %json {good}\n", answer_is_plain=True)
    outcome = desk.next()
    assert isinstance(outcome, Request)
    assert desk.desk._compiler._trial.process.pid is None
    refused = desk.refused(answer_grammar=f"start: %json {bad}\n", answer_is_plain=True)
    assert refused.field == "tools[0].function.parameters"
    assert desk.desk._compiler._trial.process.pid is not None


def refs(n: int) -> dict[str, Any]:
    chain = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": {**chain, f"a{n}": {"type": "string"}}}


def either(i: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", "pattern": f"a{i}"}, {"type": "integer", "minimum": i}]}


HOSTILE_SCHEMAS: dict[str, Any] = {
    "a chain of references": refs(5_000),
    "combinations": {"allOf": [either(i) for i in range(30)]},
    "100,000 values": {"enum": [f"v{i}" for i in range(100_000)]},
    "endless": ENDLESS,
    "itself": {"$ref": "#"},
    "a long text": {"const": "x" * 900_000},
    "a nested pattern": {"type": "string", "pattern": "(" * 5_000 + "a" + ")*" * 5_000},
    "remote": {"$ref": "http://localhost/schema.json"},
}

HOSTILE_GRAMMARS: dict[str, str] = {
    "a chain of rules": "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(20_000)) + 'a20000 ::= "x"',
    "a deep chain": "root ::= a0\n" + "".join(f'a{i} ::= "(" a{i + 1} ")"\n' for i in range(9_000)) + "a9000 ::= .",
    "many alternatives": 'root ::= root "." | ' + " | ".join(f'"a{i}"' for i in range(30_000)),
    "endless": 'root ::= "a" | "b" a\na ::= ' + '"x" ' * 3_000 + "a",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_SCHEMAS)
def test_hostile_schemas_are_refused(desk: Desk, name: str) -> None:
    assert len(desk.refused(json_schema=json.dumps(HOSTILE_SCHEMAS[name])).message) < 400
    desk.ask(json_schema='{"type":"integer"}')
    assert isinstance(desk.next(), Request), "the desk goes on"


@pytest.mark.parametrize("name", HOSTILE_GRAMMARS)
def test_hostile_grammars_work_or_are_refused(desk: Desk, name: str) -> None:
    desk.ask(grammar=HOSTILE_GRAMMARS[name])
    outcome = desk.next()
    assert isinstance(outcome, Request) or isinstance(outcome[1], InvalidRequest)
    desk.ask(grammar='root ::= "a"')
    assert isinstance(desk.next(), Request), "the desk goes on"


def test_a_trial_that_died_starts_anew() -> None:
    trial = GrammarTrial()
    good = schema_grammar('{"type":"integer"}')
    deadly = lark_grammar("start: a0\n" + "".join(f"a{i}: a{i + 1}\n" for i in range(50_000)) + 'a50000: "x"\n')
    assert trial.run(good) is None
    assert "too deep" in str(trial.run(deadly))
    assert trial.run(good) is None
    trial.close()
    trial.close()


INTEGER = {"type": "integer"}
DEAD_ENDS: dict[str, dict[str, Any]] = {
    "listed": {"properties": {"a": INTEGER, "ab": INTEGER}, "patternProperties": {"^ab?$": INTEGER}},
    "required": {"patternProperties": {"^(x|y)$": INTEGER}, "required": ["x", "y"]},
    "merged": {"allOf": [{"properties": {"a": INTEGER, "b": INTEGER}}, {"patternProperties": {"^[ab]$": INTEGER}}]},
}


@pytest.mark.parametrize("kind", DEAD_ENDS)
def test_a_schema_that_leads_to_a_dead_end_is_refused_before_anything_is_generated(desk: Desk, kind: str) -> None:
    schema = {"type": "object", "additionalProperties": False, **DEAD_ENDS[kind]}
    if kind == "merged":
        schema["allOf"][1]["additionalProperties"] = schema.pop("additionalProperties")
    assert "'json_schema': nothing can follow behind {" in desk.refused(json_schema=json.dumps(schema)).message


def test_a_schema_with_patterns_that_has_none_is_taken(desk: Desk) -> None:
    schema = {"type": "object", "properties": {"a": INTEGER}, "patternProperties": {"^a": INTEGER}, "required": ["a"]}
    desk.ask(json_schema=json.dumps(schema))
    assert isinstance(desk.next(), Request)


def with_names(*each: dict[str, Any]) -> str:
    properties = {f"property {i}": schema for i, schema in enumerate(each)}
    names = list(properties)
    return json.dumps({"type": "object", "properties": properties, "required": names, "additionalProperties": False})


BOOLEAN = {"type": "boolean"}


@pytest.mark.parametrize(
    "schema",
    [
        with_names(BOOLEAN, {"const": "ab" * 16_000}),
        with_names(BOOLEAN, *({"const": chr(97 + i) * 4_000} for i in range(12))),
    ],
)
def test_a_schema_that_gives_more_text_than_can_be_followed_is_refused_before_anything_is_generated(
    desk: Desk, schema: str
) -> None:
    """Each of these began well, and the answer broke off amid the text that is given."""
    assert "too much of the text is given" in desk.refused(json_schema=schema).message


def test_a_schema_of_a_thousand_properties_can_be_followed_to_its_end(desk: Desk) -> None:
    desk.ask(json_schema=with_names(*[BOOLEAN] * 1_000))
    outcome = desk.next()
    assert isinstance(outcome, Request)
    assert outcome.grammar is not None
    constraint = outcome.grammar.start()
    while not constraint.is_complete:
        for token in constraint.forced(1000):
            constraint.accept(token)
        if mask := int.from_bytes(constraint.mask().tobytes(), "little"):
            if constraint.is_complete:
                break
            constraint.accept((mask & -mask).bit_length() - 1)


def test_a_process_that_is_stopped_is_replaced() -> None:
    trial = GrammarTrial()
    good = schema_grammar('{"type":"integer"}')
    assert trial.run(good) is None
    assert trial.process.pid is not None
    trial.process.limits = replace(LIMITS, wall_seconds=2.0)
    os.kill(trial.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, trial.process.pid, os.WSTOPPED)  # all its threads
    assert "said nothing for 2 s" in str(trial.run(good))
    assert trial.process.pid is None
    trial.process.limits = LIMITS
    assert trial.run(good) is None
    trial.close()


@pytest.mark.parametrize("token", [1, 5, 256, 257, 40_000])
def test_any_token_may_be_named(desk: Desk, token: int) -> None:
    """Of models with control tokens most have these behind tens of thousands of others."""
    desk.ask(grammar=f'root ::= <[{token}]> "a"')
    for wanted in (desk.next(), outcome_of(desk, answer_grammar=f'start: <[{token}]> /(.|\\n)+/ <[{token}]> "b"\n')):
        assert isinstance(wanted, Request)
        assert wanted.grammar is not None
        assert wanted.grammar.start().try_accept(token) or wanted.grammar.start().is_complete


def outcome_of(desk: Desk, **params: Any) -> Outcome:
    desk.ask(**params)
    return desk.next()


def test_what_stands_behind_a_named_token_is_tried_too() -> None:
    trial = GrammarTrial()
    try:
        assert trial.run(lark_grammar(f'start: <[90000]> <[90001]> "{"x" * 40_000}"\n')) == TOO_MUCH_GIVEN
        assert trial.run(lark_grammar("".join(["start: ", *(f"<[{1000 + i}]> " for i in range(600)), "\n"]))) is None
    finally:
        trial.close()


def test_a_grammar_in_gbnf_may_stand_behind_something(desk: Desk) -> None:
    def behind(definition: str) -> dict[str, Any]:
        inner = InnerGrammar(name="final", field="grammar", syntax="gbnf", definition=definition)
        return {"answer_grammar": 'start: /[^#]*/ "#" @final\n', "inner_grammars": (inner,)}

    desk.ask(**behind('root ::= "yes" | "(" root ")"'))
    assert isinstance(desk.next(), Request)
    for wrong in ('root ::= "a', "root ::= other", "root ::= root"):
        error = desk.refused(**behind(wrong))
        assert error.field == "grammar"
        assert error.message.count("Field 'grammar'") == 1
