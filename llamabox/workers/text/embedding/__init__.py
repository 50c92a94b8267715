"""Embedding in the text worker: the contexts that make vectors, and whose step is next."""
