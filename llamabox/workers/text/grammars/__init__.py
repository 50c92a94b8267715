"""Grammars on their way to the engine: tried out in quarantine, compiled and kept."""
