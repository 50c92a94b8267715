"""Drafts from texts that are at hand: no second model, no C."""
