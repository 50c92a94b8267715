"""`python -m tests.lending.real_client MODEL [HOST:PORT]`: ggml's own client. Prints its text, and times.

A process of its own: ggml aborts the one that loses its server. All of the model is on the server's device. Weights
that lie there are not packed, nor are they here: the low bits of other arithmetic would choose another word at a tie.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from llamabox.bindings import backend, ffi
from llamabox.bindings.batch import NativeBatch
from llamabox.bindings.context import Context, ContextParams, FlashAttention
from llamabox.bindings.model import Model, ModelParams

PROMPT = "The capital of France is Paris, and the capital of Italy is"
N_TOKENS = 24


def add_server(native: ffi.Native, endpoint: str) -> str:
    """The name of its first device."""
    lib = native.lib
    add = backend.proc_address(native, "RPC", "ggml_backend_rpc_add_server", "ggml_backend_reg_t (*)(const char *)")
    device = lib.ggml_backend_reg_dev_get(add(endpoint.encode()), 0)
    lib.ggml_backend_device_register(device)
    return native.text(lib.ggml_backend_dev_name(device)) or ""


def continued(context: Context) -> bytes:
    """Greedily."""
    vocab = context.model.vocab
    tokens = vocab.tokenize(PROMPT, add_special=True, parse_special=True)
    text, position = b"", 0
    for _ in range(N_TOKENS):
        batch = NativeBatch(context.native, context.n_batch)
        row = batch.extend(tokens, position, 0)[-1]
        batch.logits[row] = 1
        context.decode(batch)
        position += len(tokens)
        tokens = [int(np.argmax(context.logits(row)))]
        text += vocab.piece(tokens[0], special=True)
    return text


def main(path: str, endpoint: str | None) -> None:
    native = ffi.load()
    backend.start(native)
    devices = (add_server(native, endpoint),) if endpoint else ()
    started = time.monotonic()
    with (
        Model.load(native, path, ModelParams(devices=devices, repack=False)) as model,
        Context(
            model,
            ContextParams(n_ctx=256, n_batch=64, n_ubatch=64, n_seq_max=1, n_threads=1, flash_attn=FlashAttention.OFF),
        ) as context,
    ):
        loaded = time.monotonic()
        text = continued(context)
        took = time.monotonic() - loaded
    print(f"load {loaded - started:.2f} s, {N_TOKENS / took:.1f} tokens/s", file=sys.stderr)
    sys.stdout.buffer.write(text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
