"""The form in which a model writes thoughts and calls, as data.

One description yields the reader of answers (chat/answer.py) and the grammar that keeps a model to it. The texts are
those that the template writes, blanks included; readers look for them without the blanks at their ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

ID = "\ue0a1"
"""In a form's text: the call's id stands here."""
INDEX = "\ue0a2"
"""In a form's text: the call's number stands here."""
TYPE = "\ue0a3"
"""In `TaggedCalls.key_close`: what tells the kind of the value stands here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """What stands around a thought. `open` is empty where only the prompt opens one."""

    open: str
    close: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands around calls: section_open (open call close) separator (open call close) … section_close.

    Where it `repeats`, the separator stands between sections.
    """

    section_open: str = ""
    open: str = ""
    close: str = ""
    separator: str = ""
    section_close: str = ""
    repeats: bool = False  # each call has a section of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCalls(Section):
    """A call is a JSON object with its name and arguments.

    With an `arguments_key` of "" the name is the only key, and the arguments are its value.
    """

    is_array: bool = False  # the calls of a section are one JSON array
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""  # "": calls have no id


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCalls(Section):
    """A call is its name, `name_close`, and its arguments in JSON.

    ID and INDEX may stand in `open` and `name_close`.
    """

    name_close: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedCalls(Section):
    """A call is its name, `name_close`, and for each argument: key_open KEY key_close VALUE value_close.

    A value is text as it is where it is a string, and JSON otherwise. Which one it is says the tool's schema, or what
    stands at TYPE in `key_close`. `value_close` may have the key again, at ID.
    """

    name_close: str
    key_open: str
    key_close: str
    value_close: str
    value_separator: str = ""  # between value_close and the next key_open
    string_type: str = ""  # what stands at TYPE before a string


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCalls(Section):
    """Calls are a Python list of calls with keyword arguments: [look_up(word="x"), stop()]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BracedCalls(Section):
    """A call is its name and an object whose keys are bare and whose strings stand between two `quote`s."""

    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """An answer is messages: a header, `header_close`, a text, one of `ends`.

    The header names who is spoken to, or the channel. Text that is a call has only arguments, or calls of `calls`.
    """

    start: str  # before each header but the first, which the prompt has begun
    channel: str  # "": there are no channels
    header_close: str
    ends: tuple[str, ...]
    recipient: str = " to="
    function: str = ""  # before a tool's name in a recipient
    thought: tuple[str, ...] = ("analysis", "self")  # channels, or who is spoken to, of a thought
    text: tuple[str, ...] = ("final", "commentary", "user")


Calls = JsonCalls | NamedCalls | TaggedCalls | PythonCalls | BracedCalls
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Thought, JsonCalls, NamedCalls, TaggedCalls, PythonCalls, BracedCalls, Channels)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one model answers."""

    name: str
    thought: Thought | None = None
    calls: Calls | None = None
    channels: Channels | None = None
    skipped: tuple[str, ...] = ()  # what stands around text and says nothing
    before_calls: str = ""  # what the template writes between text and calls

    def to_wire(self) -> dict[str, Any]:
        """JSON of it."""
        told: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            kind = type(value).__name__
            told[field.name] = {"kind": kind, **asdict(value)} if kind in KINDS else value
        return told

    @classmethod
    def from_wire(cls, told: Mapping[str, Any]) -> Format:
        """The format of which `told` is the JSON."""
        return cls(**{name: _value(value) for name, value in told.items()})

    def with_marks(self, marks: Mapping[str, str]) -> Format:
        """The same, with each control token's text replaced by the character that stands for it (llamabox.marks)."""
        tokens = sorted(marks, key=len, reverse=True)

        def marked(value: Any) -> Any:
            if isinstance(value, str):
                for token in tokens:
                    value = value.replace(token, marks[token])
                return value
            if isinstance(value, dict):
                return {name: one if name == "kind" else marked(one) for name, one in value.items()}
            return [marked(one) for one in value] if isinstance(value, list | tuple) else value

        return Format.from_wire({**marked(self.to_wire()), "name": self.name})

    def thought_edges(self, *, with_calls: bool) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """(texts that open a thought, texts that close one, the text that closes one as the template writes it).

        `with_calls`: the opening of a call closes one too. None closes one where the form has no thoughts.
        """
        if (channels := self.channels) is not None:
            head = channels.channel or channels.recipient
            opens = tuple(f"{head}{name}{channels.header_close}".strip() for name in channels.thought)
            return opens, tuple(end.strip() for end in channels.ends if end.strip()), channels.ends[0]
        if self.thought is None:
            return (), (), ""
        calls = self.calls
        opening = (calls.section_open or calls.open).partition(ID)[0].partition(INDEX)[0].strip() if calls else ""
        closes = (self.thought.close.strip(), *([opening] if with_calls and len(opening) > 1 else ()))
        opening = self.thought.open.strip()
        return ((opening,) if opening else ()), closes, self.thought.close

    def thought_words(self) -> tuple[str, ...]:
        """The texts that tell a thought from the text behind it, without blanks at their ends; some may be empty."""
        if self.channels is not None:
            return self.channels.channel.strip(), self.channels.header_close.strip()
        return () if self.thought is None else (self.thought.open.strip(), self.thought.close.strip())

    def delimiters(self) -> list[str]:
        """The texts that stand around things, without blanks at their ends; none is empty."""
        found: list[str] = list(self.skipped)
        for piece in (self.thought, self.calls, self.channels):
            if piece is not None:
                for value in asdict(piece).values():
                    found += [value] if isinstance(value, str) else value if isinstance(value, tuple) else []
        return list(dict.fromkeys(text.strip() for text in found if text.strip()))


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        kind = KINDS[value["kind"]]
        return kind(**{name: _value(one) for name, one in value.items() if name != "kind"})
    return tuple(value) if isinstance(value, list) else value


PLAIN = Format(name="plain")
"""Text alone."""

GENERIC = Format(
    name="generic",
    calls=JsonCalls(section_open='{"tool_calls": ', section_close="}", separator=", ", is_array=True),
    before_calls="\n",
)
"""The form for templates that know of no calls; adapt.py tells calls of the history in it."""
