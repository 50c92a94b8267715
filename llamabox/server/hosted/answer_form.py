"""The form of a hosted model's answers, and its control tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamabox.chat.formats.detection.edges import TAG
from llamabox.chat.formats.form import Format
from llamabox.marks import N_MARKS
from llamabox.server.hosted.seams import TextService
from llamabox.wire.questions import FindControlTokens


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """A model's form, and the ids of the control tokens that stand in it, by their texts."""

    form: Format
    tokens: Mapping[str, int]

    def is_told_by(self, grammar: str) -> bool:
        """Whether a grammar in GBNF says where thoughts are: something that begins or ends one stands in it.

        That is a text, or the id of a control token.
        """
        words = [word for word in self.form.thought_words() if word]
        ids = [f"<[{self.tokens[word]}]>" for word in words if word in self.tokens]
        return any(word in grammar for word in (*words, *ids))


async def with_tokens(form: Format, client: TextService) -> AnswerForm:
    """The form with those of its tags that are control tokens to the model."""
    tags = list(dict.fromkeys(tag for text in form.delimiters() for tag in TAG.findall(text)))
    found = (await client.ask(FindControlTokens(tags))).tokens if tags else []
    known = {tag: token for tag, token in zip(tags, found, strict=True) if token >= 0}
    return AnswerForm(form, dict(list(known.items())[:N_MARKS]))
