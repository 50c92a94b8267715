"""Responses that are kept for later requests."""
