"""From a Submit to the engine's Request: tokenising, and the checks that need the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

import numpy as np

from llamabox.bindings.media.projector import Projector
from llamabox.bindings.vocab import Vocab
from llamabox.engine.embedding.media_passages import MediaPassage
from llamabox.engine.embedding.passages import Passage, name_of, too_long
from llamabox.engine.grammar import TokenMask
from llamabox.engine.request import (
    MAX_BIASES,
    NO_MEDIA,
    GenerationParams,
    Media,
    Picture,
    Prompt,
    PromptText,
    Request,
    Sound,
    ThoughtBudget,
    Words,
    n_cells,
    prompt_tokens,
)
from llamabox.engine.text.stop_strings import StopStrings
from llamabox.errors import ContextExceeded, InvalidRequest, RequestError
from llamabox.wire.text import Embed, Submit
from llamabox.workers.text.layouts.pairs import PairFormat
from llamabox.workers.text.media.content import (
    Content,
    PreparedBytes,
    as_prompt,
    close_chunks,
    prepared_later,
    segments,
)
from llamabox.workers.text.runner import SamplerMaker

KEPT_STOPS = 16
"""Sets of stop strings that stay compiled."""


@dataclass(frozen=True, slots=True)
class Passages:
    """The tokenised passages of one Embed message."""

    passages: list[Passage]
    n_left: int
    with_media: Sequence[MediaPassage] = ()


class Intake:
    """Tokenises what clients send. Thread-safe, as llama_tokenize is."""

    def __init__(
        self,
        vocab: Vocab,
        pairs: PairFormat,
        n_ctx: int,
        projector: Projector | None = None,
        has_rows: Callable[[Media], bool] | None = None,
    ) -> None:
        """`n_ctx` is a slot's. Without a projector prompts with media are refused.

        `has_rows` tells whether the rows of a chunk are there already. Then its content is only prepared if they go
        before they are used.
        """
        self._has_rows = has_rows or (lambda media: False)
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._projector = projector
        self.room = PreparedBytes()
        self._pairs = pairs
        self._samplers = SamplerMaker(vocab, n_ctx)
        self._stop = lru_cache(KEPT_STOPS)(StopStrings)  # all prompts of a request bring the same ones
        self._biases = lru_cache(1)(self._by_token)
        self._early = lru_cache(KEPT_STOPS)(self._without_ends)

    def request(self, submit: Submit) -> Request:
        """The engine's request for `submit`. Raises InvalidRequest naming the field, ContextExceeded for much media."""
        params, biases = submit.params, None
        if any(isinstance(token, str) for token, _ in params.sampling.logit_bias):
            biases = self._biases(params.sampling.logit_bias)
            params = replace(params, sampling=replace(params.sampling, logit_bias=biases))
        if submit.prediction:
            params = replace(params, drafting=replace(params.drafting, prediction=self._foreseen(submit.prediction)))
        if params.thought is not None:
            params = replace(params, thought=self._ending(params.thought))
        prompt, contents = self._taken_in(submit.prompt, self._n_ctx - 1)
        return Request(
            request_id=submit.request_id,
            prompt=prompt,
            params=params,
            stop=self._stop(params.stop),
            early=self._early(params.stop_tokens) if params.n_least else None,
            logit_bias=biases,
            prompt_text=self._text(submit.prompt) if params.return_prompt else None,
            samplers=self._samplers.source(params.sampling, prompt_tokens(prompt)),
            n_audio=sum(piece.n_cells for piece in prompt if isinstance(piece, Media) and contents[piece].is_sound),
            contents=contents,
        )

    def is_known(self, params: GenerationParams) -> bool:
        """Whether DRY's sequence breakers are compiled already. If not, `request` takes a part of a second."""
        breakers = params.sampling.dry_sequence_breakers
        return params.sampling.dry_multiplier == 0 or self._vocab.breakers.knows(
            tuple(word.encode(errors="replace") for word in breakers)
        )

    def passages(self, embed: Embed) -> Passages:
        """The embedder's passages for `embed`. Raises RequestError naming the field and the passage."""
        if embed.query is None:
            found = [self._passage(embed, embed.first + i, prompt) for i, prompt in enumerate(embed.prompts)]
            texts = [one for one in found if isinstance(one, Passage)]
            return Passages(texts, embed.n_left, [one for one in found if isinstance(one, MediaPassage)])
        pairing = self._pairs.pairing(embed.query, n_document=embed.n_document, truncate=embed.truncate)
        documents = ("".join(map(str, prompt)) for prompt in embed.prompts)
        pairs = [
            Passage(embed.request_id, embed.first + i, tuple(pairing(text)), embed.field)
            for i, text in enumerate(documents)
        ]
        return Passages(pairs, embed.n_left)

    def _passage(self, embed: Embed, index: int, prompt: PromptText) -> Passage | MediaPassage:
        try:
            if has_media(prompt):
                taken, contents = self._taken_in(prompt, self._n_ctx)
                return MediaPassage(embed.request_id, index, taken, contents, embed.field)
            tokens = self.tokens(prompt, add_special=True, parse_special=True)
        except ContextExceeded as error:
            name, n_tokens = name_of(embed.field, index), error.details["n_prompt_tokens"]
            raise too_long(name, n_tokens, self._n_ctx) from error
        except RequestError as error:
            raise InvalidRequest(f"Field 'input': input {index}: {error.message}", field="input") from error
        return Passage(embed.request_id, index, tuple(tokens), embed.field)

    def _by_token(self, entries: tuple[tuple[int | str, float], ...]) -> tuple[tuple[int, float], ...]:
        """A text biases each token that it becomes. Raises InvalidRequest where these are too many."""
        found: dict[int, float] = {}
        for token, bias in entries:
            texts = [token] if isinstance(token, int) else self.tokens([token], add_special=False, parse_special=True)
            found.update((one, bias) for one in texts)
            if len(found) > MAX_BIASES:
                what = f"Field 'logit_bias': its texts become more than {MAX_BIASES} tokens"
                raise InvalidRequest(what, field="logit_bias")
        return tuple(found.items())

    def _without_ends(self, stop_tokens: tuple[int, ...]) -> TokenMask:
        """All tokens but those that end a text, `stop_tokens` among them."""
        may_come = np.ones(-(-self._vocab.n_tokens // 32) * 32, np.uint8)
        may_come[[*self._vocab.eog_tokens, *map(self._vocab.check, stop_tokens)]] = 0
        return np.packbits(may_come, bitorder="little").view(np.uint32)

    def _foreseen(self, text: str) -> tuple[int, ...]:
        """The tokens of a prediction, as an answer has them: what looks like a special token is text."""
        return tuple(self.tokens([text], add_special=False, parse_special=False)[: self._n_ctx])

    def _ending(self, budget: ThoughtBudget) -> ThoughtBudget:
        """With the tokens of what ends a thought. What looks like a special token is one in the form's own text."""
        return replace(
            budget,
            message_tokens=tuple(self.tokens([budget.message], add_special=False, parse_special=False)),
            close_tokens=tuple(self.tokens([budget.close], add_special=False, parse_special=True)),
        )

    def _text(self, prompt: PromptText) -> str:
        """The prompt as the model gets it, BOS included, special tokens given by id and media left out."""
        has_bos = self._vocab.add_bos and self._vocab.bos is not None and prompt and not isinstance(prompt[0], int)
        pieces = [self._vocab.text(self._vocab.bos)] if has_bos and self._vocab.bos is not None else []
        for is_text, run in groupby(prompt, lambda part: isinstance(part, str)):
            if is_text:
                pieces += map(str, run)
            else:
                data = b"".join(self._vocab.piece(part, special=False) for part in run if isinstance(part, int))
                pieces.append(data.decode("utf-8", "replace"))
        return "".join(pieces)

    def prompt(self, content: PromptText, *, add_special: bool, parse_special: bool) -> Prompt:
        """The segments of a prompt. Strings and ids between media are one, and each medium is a Media or several.

        Special tokens among strings beside media are parsed in any case.
        """
        if has_media(content):
            pieces = self._media_model().tokenize(content, add_special=add_special, counts_only=True)
            close_chunks(pieces)
            return as_prompt(pieces)
        tokens = self.tokens(content, add_special=add_special, parse_special=parse_special)
        return (Words(tuple(tokens)),) if tokens else ()

    def _taken_in(self, content: PromptText, n_most: int) -> tuple[Prompt, dict[Media, Content]]:
        """A prompt to be computed, with the contents of its media: prepared where it has at most `n_most` cells."""
        if not has_media(content):
            return self.prompt(content, add_special=True, parse_special=True), {}
        projector = self._media_model()
        counted = projector.tokenize(content, add_special=True, counts_only=True)
        prompt = as_prompt(counted)
        if n_cells(prompt) <= n_most and all(self._has_rows(part) for part in prompt if isinstance(part, Media)):
            return segments(counted, self.room, prepared_later(projector, prompt, content))
        close_chunks(counted)
        if n_cells(prompt) > n_most:
            raise ContextExceeded(n_prompt_tokens=n_cells(prompt), n_ctx=self._n_ctx)
        return segments(projector.tokenize(content, add_special=True), self.room)

    def _media_model(self) -> Projector:
        if self._projector is None:
            raise InvalidRequest(f"Field 'prompt': {NO_MEDIA}", field="prompt")
        return self._projector

    def token_ids(self, content: PromptText, *, add_special: bool, parse_special: bool) -> bytes:
        """What `tokens` returns, as an int32 each."""
        if len(content) == 1 and isinstance(content[0], str):
            ids = self._vocab.token_ids(content[0], add_special=add_special, parse_special=parse_special)
            return ids.tobytes()
        tokens = self.tokens(content, add_special=add_special, parse_special=parse_special)
        return np.array(tokens, np.int32).tobytes()

    def tokens(self, content: PromptText, *, add_special: bool, parse_special: bool) -> list[int]:
        """The ids of strings and ids in order; only a leading string gets BOS and the like. No media."""
        tokens: list[int] = []
        for i, part in enumerate(content):
            if isinstance(part, str):
                tokens += self._vocab.tokenize(part, add_special=add_special and i == 0, parse_special=parse_special)
            elif isinstance(part, int):
                tokens.append(self._vocab.check(part))
            else:
                raise InvalidRequest("Field 'prompt': images and sound have no tokens", field="prompt")
        return tokens


def has_media(content: PromptText) -> bool:
    """Whether a picture or sound is in it."""
    return not {Picture, Sound}.isdisjoint(map(type, content))
