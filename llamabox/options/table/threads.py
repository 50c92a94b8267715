"""Options of the threads that compute: where they run, how urgently, and how they wait."""

from __future__ import annotations

from llamabox.options import values as v
from llamabox.options.option import text

THREAD_OPTIONS = (
    text(
        "-C --cpu-mask", "text.cpu_mask", v.cpu_mask, metavar="HEX", accumulates=True, default="all",
        text="CPUs that compute, as bits: f0 is 4 to 7",
    ),
    text(
        "-Cr --cpu-range", "text.cpu_mask", v.cpu_range, metavar="LO-HI", accumulates=True, default="",
        text="the same as a range, added to -C; either end may be left out",
    ),
    text(
        "--cpu-strict", "text.cpu_strict", v.one_of(v.BIT), metavar="0|1", default="0",
        text="1 binds each thread to a CPU of its own",
    ),
    text(
        "--prio", "text.prio", v.integer(-1, 3),
        text="priority of the threads: -1 low, 0 usual, 1 medium, 2 high, 3 highest; above 0 they go before all others",
    ),
    text(
        "--poll", "text.poll", v.integer(0, 100),
        text="how long waiting threads spin before they sleep: 0 not at all, 100 where nothing else wants the CPUs; "
        "with OpenMP the larger of this and --poll-batch counts",
    ),
    text(
        "-Cb --cpu-mask-batch", "text.cpu_mask_batch", v.cpu_mask, metavar="HEX", accumulates=True, default="as -C",
        text="-C for prompts",
    ),
    text(
        "-Crb --cpu-range-batch", "text.cpu_mask_batch", v.cpu_range, metavar="LO-HI", accumulates=True, default="",
        text="-Cr for prompts",
    ),
    text(
        "--cpu-strict-batch", "text.cpu_strict_batch", v.one_of(v.BIT), metavar="0|1", default="as --cpu-strict",
        text="--cpu-strict for prompts",
    ),
    text(
        "--prio-batch", "text.prio_batch", v.integer(-1, 3), default="as --prio",
        text="--prio for prompts; with OpenMP a thread keeps a priority until one other than 0 replaces it",
    ),
    text("--poll-batch", "text.poll_batch", v.integer(0, 100), "--poll for prompts", default="as --poll"),
)  # fmt: skip
