"""The routes that listen."""
