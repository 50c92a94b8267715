"""What libllama's log says of a load, as the pinned version words it."""

from __future__ import annotations

import logging

import pytest

from llamabox.workers.text.loading.placement import Placement

MIB = 1 << 20
REMOTE = (("RPC0", "a:1", 0), ("RPC1", "b:2", 0), ("RPC2", "b:2", 1))
LINES = """\
load_tensors: layer   0 assigned to device CPU, is_swa = 0
load_tensors: layer   1 assigned to device RPC0, is_swa = 0
load_tensors: layer   2 assigned to device RPC2, is_swa = 1
load_tensors: layer   3 assigned to device RPC2, is_swa = 0
load_tensors:   CPU_Mapped model buffer size =    90.00 MiB
load_tensors:    RPC0[a:1] model buffer size =     4.00 MiB
load_tensors:    RPC1[b:2] model buffer size =    12.50 MiB
llama_kv_cache:  RPC1[b:2] KV buffer size =    64.00 MiB
"""
SIZES = {"token_embd.weight": 5, "blk.0.attn_q.weight": 2, "blk.1.attn_q.weight": 30, "output.weight": 70}


def heard() -> Placement:
    placement = Placement(REMOTE)
    for line in LINES.splitlines():
        placement.hear(line)
    return placement


def test_layers_and_weights_by_device() -> None:
    assert heard().split(SIZES) == [
        {"device": "CPU", "server": "", "n_layers": 1, "size": 7},
        {"device": "RPC0", "server": "a:1", "n_layers": 1, "size": 4 * MIB},
        {"device": "RPC2", "server": "b:2", "n_layers": 2, "size": 12.5 * MIB},
    ]


def test_a_draft_model_that_is_loaded_behind_it_is_another_model() -> None:
    placement = heard()
    expected = placement.split(SIZES)
    for line in LINES.splitlines():
        placement.hear(line)
    assert placement.split(SIZES) == expected


def test_a_gpu_of_this_machine_has_no_server() -> None:
    placement = Placement(())
    for line in LINES.replace("RPC1[b:2]", "Vulkan0").replace("RPC2", "Vulkan0").splitlines()[2:3]:
        placement.hear(line)
    placement.hear("load_tensors:      Vulkan0 model buffer size =    12.50 MiB")
    placement.hear("load_tensors:  Vulkan_Host model buffer size =    28.00 MiB")
    assert placement.split({})[-1] == {"device": "Vulkan0", "server": "", "n_layers": 1, "size": 12.5 * MIB}


def test_the_log_tells_which_server_has_what(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    placement = heard()
    for part in (0.0, 0.5, 0.9, 1.0):
        placement.progress(part)
    placement.report(placement.split(SIZES))
    assert caplog.messages == [
        "loading: RPC0 (a:1) has its 4.0 MiB",
        "loading: RPC2 (b:2) has its 12.5 MiB",
        "split: CPU 1 layers, 0.0 MiB; RPC0 (a:1) 1 layers, 4.0 MiB; RPC2 (b:2) 2 layers, 12.5 MiB",
    ]
