"""Large blocks that grow side by side take little more memory than they hold."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import random, sys
from llamabox.machine.heap import map_large_blocks

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) << 10

if sys.argv[1] == "mapped":
    map_large_blocks()
earlier = bytearray(31 << 20)
del earlier  # glibc takes it for the size of blocks that come and go
before = status("VmRSS")
choice = random.Random(1)
blocks = [bytearray() for _ in range(16)]
while sum(map(len, blocks)) < 128 << 20:
    block = choice.choice(blocks)
    block += bytes(choice.choice((40_000, 65_536, 200_000)))
print(status("VmHWM") - before, sum(map(len, blocks)))
"""


def overhead(how: str) -> float:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=60)
    peak, held = map(int, done.stdout.split())
    return peak / held - 1


def test_blocks_that_grow_side_by_side_take_what_they_hold() -> None:
    assert overhead("mapped") < 0.1 < overhead("as it is")
