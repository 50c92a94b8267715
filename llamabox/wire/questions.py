"""Questions to the text worker, each with the type of its answer.

Those about a slot wait until it is idle; all others are answered at once, also while a step runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

from llamabox.engine.events import SlotView
from llamabox.engine.request import PromptText
from llamabox.wire.text_config import FileName

ID_BYTES = 4


class Answer:
    """What a question is answered with."""

    __slots__ = ()


A = TypeVar("A", bound=Answer)


class Question(Generic[A]):
    """One that is answered with an A."""

    __slots__ = ()

    @classmethod
    def answer_type(cls) -> type[Any]:
        """A."""
        [base] = cls.__orig_bases__  # type: ignore[attr-defined]
        [found] = get_args(base)
        answer: type[Any] = found
        return answer


@dataclass(frozen=True, slots=True)
class Tokens(Answer):
    """Token ids."""

    tokens: list[int]


@dataclass(frozen=True, slots=True)
class TokenIds(Answer):
    """Token ids of a text, however many: as numbers of JSON a million would hold up everybody at both ends."""

    data: bytes  # int32 each, in this machine's order

    @classmethod
    def of(cls, tokens: Iterable[int]) -> TokenIds:
        return cls(array("i", tokens).tobytes())

    def __len__(self) -> int:
        return len(self.data) // ID_BYTES

    def part(self, start: int, stop: int) -> list[int]:
        """Those from `start` up to `stop`."""
        return memoryview(self.data)[ID_BYTES * start : ID_BYTES * stop].cast("i").tolist()


@dataclass(frozen=True, slots=True)
class Tokenise(Question[TokenIds]):
    """The ids of texts and ids in order; only a leading text gets BOS and the like. Raises InvalidRequest."""

    content: PromptText
    add_special: bool
    parse_special: bool


@dataclass(frozen=True, slots=True)
class TokenCount(Answer):
    """Tokens and rows of media."""

    n_tokens: int


@dataclass(frozen=True, slots=True)
class CountTokens(Question[TokenCount]):
    """How many a prompt has as a Submit's. Raises InvalidRequest."""

    prompt: PromptText


@dataclass(frozen=True, slots=True)
class FindControlTokens(Question[Tokens]):
    """The control token that each text is, -1 for what is none: such a token never shows in a text."""

    texts: list[str]


@dataclass(frozen=True, slots=True)
class Text(Answer):
    """Bytes that are no UTF-8 are U+FFFD."""

    text: str


@dataclass(frozen=True, slots=True)
class Detokenise(Question[Text]):
    """The text of tokens; special ones are not rendered. Raises InvalidRequest."""

    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Pieces(Answer):
    """The bytes of each token."""

    pieces: list[bytes]


@dataclass(frozen=True, slots=True)
class Spell(Question[Pieces]):
    """The piece of each token, special ones rendered."""

    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Layout(Answer):
    """A prompt, and the text that it stands for, special tokens included."""

    tokens: list[int]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayOutInfill(Question[Layout]):
    """The prompt for what belongs between a prefix and a suffix. Raises NotSupported where the model has none."""

    prefix: str
    suffix: str
    prompt: str
    extra: list[tuple[str, str]]  # file names and texts
    n_predict: int


@dataclass(frozen=True, slots=True)
class SlotViews(Answer):
    """One for each slot, in the order of their ids."""

    slots: list[SlotView]


@dataclass(frozen=True, slots=True)
class LookAtSlots(Question[SlotViews]):
    """What each slot does."""


@dataclass(frozen=True, slots=True)
class SlotFile(Answer):
    """What was written or read."""

    n_tokens: int
    n_bytes: int
    ms: float


@dataclass(frozen=True, slots=True)
class SaveSlot(Question[SlotFile]):
    """Write what the slot holds to a file. Raises InvalidRequest."""

    id_slot: int
    path: FileName


@dataclass(frozen=True, slots=True)
class RestoreSlot(Question[SlotFile]):
    """Have the slot hold what a file does. Raises InvalidRequest."""

    id_slot: int
    path: FileName


@dataclass(frozen=True, slots=True)
class Erasure(Answer):
    """Tokens that a slot held."""

    n_tokens: int


@dataclass(frozen=True, slots=True)
class EraseSlot(Question[Erasure]):
    """Forget what the slot holds."""

    id_slot: int


SlotQuestion = SaveSlot | RestoreSlot | EraseSlot
