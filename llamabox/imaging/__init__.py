"""Image jobs over bindings.diffusion. `job` and `events` are plain values that cross the process boundary."""
