"""A model behind the port: its client, its configuration, and what its requests share."""
