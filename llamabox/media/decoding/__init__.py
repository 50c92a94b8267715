"""What runs in the children of the media desk: files in, pixels or samples out (sandbox.py)."""
