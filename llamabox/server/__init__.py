"""The HTTP face: Starlette routes over the text client, served by Hypercorn. Loads no native code."""
