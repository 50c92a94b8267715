"""The HTTP face of the server process: Starlette routes, served by Hypercorn. Loads no native code."""
