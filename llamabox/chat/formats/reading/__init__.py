"""Readers of answers: one for each kind of form."""
