"""Drafts of the model's own heads of multi-token prediction, which take its hidden rows."""
