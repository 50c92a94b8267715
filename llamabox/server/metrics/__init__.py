"""Counters for GET /metrics: one collector for each kind of model."""
