"""Image jobs over bindings.images.diffusion. `job` and `events` are plain values that cross the process boundary."""
