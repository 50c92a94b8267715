"""The embedding routes."""
