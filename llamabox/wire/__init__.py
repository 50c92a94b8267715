"""The process boundary, known to both ends: frames, messages, and signs of life. Values alone."""
