"""Finds the form of a model from what its template renders."""
