"""What every route has in common: bodies, errors, streams, disconnects, the access record."""
