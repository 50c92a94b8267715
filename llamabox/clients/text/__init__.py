"""The text worker as the server process sees it."""
