"""Whatever options change of how a device computes, answers are those of the CPU with the same options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.device.asking import PROMPTS, Device, all_steps, assert_near, steps
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.device

Serve = Callable[..., ServerProcess]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-ngl", "2"),
        ("-ngl", "0"),
        ("-nkvo",),
        ("-fa", "on"),
        ("-fa", "off"),
        ("-ctk", "f32", "-ctv", "f32"),
        ("--no-op-offload", "-ngl", "2"),
        ("--kv-unified",),
        ("--no-mmap",),
        ("-ot", r"ffn_(up|gate|down)=CPU"),
    ],
    ids=" ".join,
)
def test_steps_are_the_cpu_s_with_the_options_that_change_how(
    device: Device, serve: Serve, words: tuple[str, ...]
) -> None:
    common = ("-c", "2048", "-np", "4", *words)
    here = all_steps(serve("-dev", "none", *common), 1)
    assert_near(all_steps(serve("-ngl", "all", *common), 3), here)


def test_a_prompt_that_comes_again_is_the_same(device: Device, serve: Serve) -> None:
    """From cells of its own slot, and from those that another one holds."""
    prompt = PROMPTS[14]
    whole = steps(serve("-dev", "none", "-c", "1024", "-np", "2"), prompt)
    server = serve("-c", "1024", "-np", "2")
    answers = [steps(server, prompt, cache_prompt=True, id_slot=slot) for slot in (0, 0, 1)]
    assert_near(answers, [whole] * 3)
    assert "KV ledger" not in server.log
