"""The text worker: one process that holds libllama, a model, and the engine's loop."""
