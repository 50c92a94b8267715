"""Vectors for many requests at once: passages, their places in a batch, and whose turn it is."""
