"""Drafts by a second, small model that runs beside the engine's, on the engine's thread."""
