"""Files read before a native library sees them: GGUF headers and adapters."""
