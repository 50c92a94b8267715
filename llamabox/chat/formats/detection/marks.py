"""What probe conversations say: names, keys and values that stand nowhere else."""

from __future__ import annotations

USER, SAY, THINK = "uq7f3a", "sq7f3a", "tq7f3a"
NAME, OTHER = "nq7f3a", "oq7f3a"
"""Two tools; the first is called with ARGUMENTS, the second without any."""
KEY, NUMBER_KEY = "kq7f3a", "lq7f3a"
VALUE, NUMBER = "vq7f3a text", 7
ARGUMENTS = {KEY: VALUE, NUMBER_KEY: NUMBER}
IDS = ("callq7f31", "callq7f32")
