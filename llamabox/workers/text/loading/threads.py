"""The threads that compute, as the options want them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llamabox.bindings.threadpool import ThreadParams, ThreadPools
from llamabox.machine import processors
from llamabox.machine.team import Team
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.loading.devices import offloads

if TYPE_CHECKING:
    from llamabox.bindings.context import Context
    from llamabox.workers.text.media.desk import EncodingDesk


def n_threads(config: TextConfig) -> int:
    """Threads that compute a step at most, or a batch of passages which is alone."""
    return max(config.n_threads_batch, config.n_threads, 1)


def are_crowded(config: TextConfig) -> bool:
    """Whether the threads of a step are more than the processors that they may use."""
    return n_threads(config) > processors.n_logical()


def has_spare_core(config: TextConfig, context: Context) -> bool:
    """Whether a decode of `context` leaves a processor to other threads."""
    return offloads(config, context.native) or context.n_threads < processors.n_logical()


def thread_params(config: TextConfig) -> tuple[ThreadParams, ThreadParams]:
    """Parameters of the threads that decode, and of those that evaluate prompts."""
    return (
        ThreadParams(cpus=config.cpu_mask, strict=config.cpu_strict, priority=config.prio, poll=config.poll),
        ThreadParams(
            cpus=config.cpu_mask_batch,
            strict=config.cpu_strict_batch,
            priority=config.prio_batch,
            poll=config.poll_batch,
        ),
    )


def thread_pools(config: TextConfig, context: Context) -> ThreadPools | None:
    """The context's threadpools; None, and ggml's own ways, where no option says anything of them."""
    plain, batch = thread_params(config)
    if plain == batch == ThreadParams():
        return None
    return ThreadPools(context, plain, batch)


@contextmanager
def adaptive_team(config: TextConfig, context: Context, encoder: EncodingDesk | None) -> Iterator[Team | None]:
    """What lets decodes have fewer threads while pictures or sounds come, which want their processors.

    None where none may come, where there is one thread, or where a GPU computes as well.
    """
    n_all = {context.n_threads, context.n_threads_batch}
    if encoder is None or len(n_all) > 1 or n_all == {1} or offloads(config, context.native):
        yield None
        return
    with Team(context, encoder.was_busy_lately) as team:
        yield team
