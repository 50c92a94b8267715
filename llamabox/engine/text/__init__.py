"""Tokens to text: whole characters, stop strings, and indentation."""
