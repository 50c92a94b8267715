"""Slots on disk: saving, restoring and erasing what was computed for a text."""
