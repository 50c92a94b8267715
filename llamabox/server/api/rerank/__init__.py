"""The rerank routes."""
