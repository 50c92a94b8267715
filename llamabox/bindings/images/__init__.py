"""libstable-diffusion behind a typed handle."""
