"""Sockets and protocols below Starlette: Hypercorn, mended where a client could hurt others."""
