"""A prompt as text, the way the model gets it: for the `prompt` field of native replies."""

from __future__ import annotations

from llamabox.engine.request import PromptText
from llamabox.server.seams import TextService
from llamabox.wire.questions import Detokenise
from llamabox.wire.text_config import ModelInfo


async def prompt_texts(client: TextService, info: ModelInfo, prompts: list[PromptText]) -> list[str]:
    """One for each prompt, BOS included. Only token ids need the worker."""
    return [await _text(client, info, prompt) for prompt in prompts]


async def _text(client: TextService, info: ModelInfo, prompt: PromptText) -> str:
    pieces: list[str] = []
    if info.add_bos and prompt and isinstance(prompt[0], str):
        pieces.append(info.bos_token)
    run: list[int] = []
    for item in prompt:
        if isinstance(item, int):
            run.append(item)
            continue
        if run:
            pieces.append((await client.ask(Detokenise(run))).text)
            run = []
        pieces.append(item)
    if run:
        pieces.append((await client.ask(Detokenise(run))).text)
    return "".join(pieces)
