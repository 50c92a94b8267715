"""What the server tells of itself and lets be changed: models, props, slots, health, metrics, tokens, LoRA."""
