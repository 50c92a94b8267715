"""llamabox: GGUF models over HTTP, an OpenAI-compatible server on libllama."""

__version__ = "0.1.0"
