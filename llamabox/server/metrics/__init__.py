"""What a server counts for GET /metrics, one collector a kind of model."""
