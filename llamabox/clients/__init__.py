"""The server process's side of the boundary: one client for each kind of worker, and the worker's life."""
