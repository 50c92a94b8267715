"""Prompts that the worker lays out itself, since they need the vocabulary: infill, and reranker's pairs."""
