"""Pictures and sound that clients send: their bytes are fetched, and decoded in a process with limits."""
