"""What libllama takes, where options check it before the bindings do: names and numbers, no code of its."""

MAX_KV_TEXT = 127
"""Bytes of a key or a text that llama_model_kv_override has room for, without the zero at its end."""

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""Types of the cells of a KV cache, by ggml's names."""
