"""An encoder's vocabulary, against a tokeniser written from BERT's description."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamabox.bindings.ffi import Native
from llamabox.bindings.model import Model
from tests.models.minilm import Encoder
from tests.models.texts import PIECES, varied_texts
from tests.models.wordpiece import WordPiece

pytestmark = pytest.mark.model


def test_the_library_tokenises_as_bert_does(native: Native, minilm: Path, encoder: Encoder) -> None:
    oracle = WordPiece(encoder.vocab)
    texts = [*PIECES, *varied_texts(lambda text: len(oracle.content(text)))]
    with Model.load(native, minilm) as model:
        for text in texts:
            assert model.vocab.tokenize(text, add_special=True, parse_special=False) == oracle.encode(text), text
