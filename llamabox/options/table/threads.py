"""Options of the threads that compute: where they run, how urgently, and how they wait."""

from __future__ import annotations

from llamabox.options import defaults
from llamabox.options.option import completion
from llamabox.options.values import common as v

THREAD_OPTIONS = (
    completion(
        "-C --cpu-mask", "text.cpu_mask", v.cpu_mask, metavar="HEX", accumulates=True, default="all",
        help="CPUs that compute, as bits: f0 is 4 to 7",
    ),
    completion(
        "-Cr --cpu-range", "text.cpu_mask", v.cpu_range, metavar="LO-HI", accumulates=True, default="",
        help="the same as a range, added to -C; either end may be left out",
    ),
    completion(
        "--cpu-strict", "text.cpu_strict", v.one_of(v.BIT), metavar="0|1", default=defaults.bit,
        help="1 binds each thread to a CPU of its own",
    ),
    completion(
        "--prio", "text.prio", v.integer(-1, 3),
        help="priority of the threads: -1 low, 0 usual, 1 medium, 2 high, 3 highest; above 0 they go before all others",
    ),
    completion(
        "--poll", "text.poll", v.integer(0, 100),
        help="how long waiting threads spin before they sleep: 0 not at all, 100 where nothing else wants the CPUs; "
        "with OpenMP the larger of this and --poll-batch counts",
    ),
    completion(
        "-Cb --cpu-mask-batch", "text.cpu_mask_batch", v.cpu_mask, metavar="HEX", accumulates=True, default="as -C",
        help="-C for prompts",
    ),
    completion(
        "-Crb --cpu-range-batch", "text.cpu_mask_batch", v.cpu_range, metavar="LO-HI", accumulates=True, default="",
        help="-Cr for prompts",
    ),
    completion(
        "--cpu-strict-batch", "text.cpu_strict_batch", v.one_of(v.BIT), metavar="0|1", default="as --cpu-strict",
        help="--cpu-strict for prompts",
    ),
    completion(
        "--prio-batch", "text.prio_batch", v.integer(-1, 3), default="as --prio",
        help="--prio for prompts; with OpenMP a thread keeps a priority until one other than 0 replaces it",
    ),
    completion("--poll-batch", "text.poll_batch", v.integer(0, 100), "--poll for prompts", default="as --poll"),
)  # fmt: skip
