"""Parsers of options' values, and what they mean together."""
