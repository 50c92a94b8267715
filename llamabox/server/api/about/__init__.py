"""Routes about the server itself: models, props, slots, health, metrics, tokens, LoRA."""
