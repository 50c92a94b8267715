"""What the next llama_decode computes: admission, turns, pacing, and the plan of a step."""
