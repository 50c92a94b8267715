"""The ground of every route: bodies, errors, streams, disconnects, the access record."""
