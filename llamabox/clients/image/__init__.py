"""The image worker as the server process sees it, and the queue before it."""
