"""What a model has beside it on a device, a draft model; and a device that is lent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.device.asking import Device, Steps, all_steps, assert_near
from tests.e2e.server_process import ServerProcess
from tests.lending.server_process import RpcServer

pytestmark = pytest.mark.device

Serve = Callable[..., ServerProcess]

SMALL = ("-c", "1024", "-np", "2")


@pytest.fixture(scope="module")
def expected(on_cpu: ServerProcess) -> list[Steps]:
    """What the CPU says to a few prompts."""
    return all_steps(on_cpu, 1)


@pytest.mark.parametrize("where", ["all", "0"])
def test_drafts_change_no_text(device: Device, serve: Serve, model: Path, expected: list[Steps], where: str) -> None:
    server = serve("-md", str(model), "-ngld", where, "--spec-type", "draft-simple", *SMALL)
    assert_near(all_steps(server, 2), expected)
    assert "draft model: " in server.log


def test_a_lent_device_computes_the_same(device: Device, serve: Serve, tmp_path: Path, expected: list[Steps]) -> None:
    lender = RpcServer(tmp_path / "lender.log")
    try:
        assert f"lending {device.name}" in lender.log
        server = serve("--rpc", f"127.0.0.1:{lender.port}", "-dev", "RPC0", "-ngl", "all", *SMALL)
        [*_, part] = server.http.get("/v1/models").json()["data"][0]["meta"]["split"]
        assert (part["device"], part["n_layers"]) == ("RPC0", 5)
        assert_near(all_steps(server, 2), expected)
    finally:
        lender.stop()
