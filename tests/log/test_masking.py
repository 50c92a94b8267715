from __future__ import annotations

import pytest

from llamabox.log.masking import masked, without_secrets

KEY = "sEcReT-0123456789"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: Basic {}",
        "bad header {{'authorization': 'Bearer {}'}}",
        "[(b'x-api-key', b'{}')]".replace("b'{}'", "'{}'").replace("',", "':"),
        "X-Api-Key: {}",
        '{{"api_key": "{}", "n": 3}}',
        "--api-key={}",
        "LLAMA_API_KEY={}",
        "GET /v1/models?api_key={}&x=1",
        "GET /v1/models?x=1&token={}",
        "client said sk-{}abcdef",
        "hf_{}abcdef",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    shown = masked(text.format(KEY))
    assert KEY not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "POST /v1/chat/completions 200 tokens=17 id=sk-3",
        "--api-key-file keys.txt: cannot read the file",
        "llamabox -m model.gguf --keep 4",
        "the key=value pairs",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert masked(text) == text


def test_what_needs_no_key_is_given_none() -> None:
    kept = {"PATH": "/bin", "GGML_CUDA_P2P": "1", "LLAMA_ARG_API_KEY_FILE": "keys.txt", "XAUTHORITY": "x"}
    secret = {"LLAMA_API_KEY": KEY, "OPENAI_API_KEY": KEY, "HF_TOKEN": KEY, "PGPASSWORD": KEY}
    assert without_secrets(kept | secret) == kept
