"""The image worker: one process that holds libstable-diffusion and a model, and draws one job at a time."""
