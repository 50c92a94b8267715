"""Sampler chains, and the tokens of all rows of a step in one native call."""
