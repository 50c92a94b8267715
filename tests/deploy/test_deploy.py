"""What lies in deploy/ fits what is here: options, variables, images."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from llamabox.options import OPTIONS
from llamabox.options.commandline import compose, compose_images, parse

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSED = sorted(path for path in DEPLOY.glob("*.yaml") if path.name != "gpustack.yaml")
GPUSTACK = (DEPLOY / "gpustack.yaml").read_text(encoding="utf-8")
FLAGS = {flag for option in OPTIONS for flag in option.flags}
VARIABLES = {option.env for option in OPTIONS if option.env}
DOCUMENTS = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")


def stages(backend: str) -> list[str]:
    return (ROOT / f"Dockerfile.{backend}").read_text(encoding="utf-8").split("\nFROM ")


@pytest.mark.parametrize("path", COMPOSED, ids=lambda path: path.name)
def test_options_of_compose_files_are_ones(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = [json.loads(found) for found in re.findall(r"^    command: (\[.*\])$", text, re.MULTILINE)]
    assert commands
    for words in commands:
        assert parse(words, {}).warnings == (), words
    # Each of our services is as an image allows it to be, and named by what is built.
    images = re.findall(r"image: llamabox:(\w+)", text)
    assert len(images) == len(commands) == text.count("read_only: true") == text.count('cap_drop: ["ALL"]')
    assert all((ROOT / f"Dockerfile.{image}").exists() for image in images)
    assert f"`{path.name}`" in DOCUMENTS


def test_build_arguments_that_are_named_are_read() -> None:
    for text in (DOCUMENTS, *(path.read_text(encoding="utf-8") for path in COMPOSED)):
        for backend, argument in re.findall(r"-f Dockerfile\.(\w+).*?--build-arg (\w+)=", text):
            assert re.search(rf"^ARG {argument}\b", "\nFROM ".join(stages(backend)), re.MULTILINE), argument


def test_variables_of_the_service_are_options() -> None:
    named = set(re.findall(r"\bLLAMA_ARG_\w+", (DEPLOY / "llamabox.service").read_text(encoding="utf-8")))
    assert named
    assert named <= VARIABLES


# ---- gpustack --------------------------------------------------------------------------------------------------------

KEYS = {
    "backend_name", "version_configs", "default_version", "default_backend_param", "default_run_command",
    "default_entrypoint", "health_check_path", "description", "default_env", "parameter_format", "common_parameters",
}  # fmt: skip
"""What gpustack 2.2.3 reads of such a file (gpustack/routes/inference_backend.py)."""

OF_0_7 = "--host 0.0.0.0 --embeddings --gpu-layers -1 --parallel 4 --ctx-size 8192 --port 40061 --model /m/m.gguf --alias a --no-mmap --no-warmup"  # noqa: E501
"""What gpustack 0.7.1 gave every llama-box (gpustack/worker/backends/llama_box.py)."""


def run_command() -> list[str]:
    """As gpustack splits it, with the values of a deployment."""
    [folded] = re.findall(r"^default_run_command: >-\n((?:  .+\n)+)", GPUSTACK, re.MULTILINE)
    for name, value in {"port": "40061", "model_path": "/m/m.gguf", "model_name": "a"}.items():
        folded = folded.replace("{{" + name + "}}", value)
    return shlex.split(folded)


def test_gpustack_reads_every_key() -> None:
    assert set(re.findall(r"^(\w+):", GPUSTACK, re.MULTILINE)) <= KEYS
    versions = re.findall(r"^  ([\w-]+):$", GPUSTACK, re.MULTILINE)
    [backend] = re.findall(r"^backend_name: (\S+)$", GPUSTACK, re.MULTILINE)
    assert all(name.endswith("-custom") for name in [backend, *versions])
    [default] = re.findall(r"^default_version: (\S+)$", GPUSTACK, re.MULTILINE)
    assert default in versions
    assert {name.removesuffix("-custom") for name in versions} == set(re.findall(r"custom_framework: (\w+)", GPUSTACK))


def test_gpustack_gives_what_it_gave_llama_box() -> None:
    assert run_command() == ["llama-box", *OF_0_7.split()]
    assert set(re.findall(r"^  - (--[\w-]+)$", GPUSTACK, re.MULTILINE)) <= FLAGS


@pytest.mark.parametrize("more", ["", "--rerank --parallel 1", "--rpc 10.0.0.1:50052 --tensor-split 1,2"])
def test_a_language_model_of_gpustack(more: str) -> None:
    parsed = parse([*run_command(), *more.split()], {})
    assert parsed.warnings == ()
    text, listen, _ = compose(parsed)
    assert (text.model, text.n_ctx, text.embeddings, text.n_gpu_layers) == ("/m/m.gguf", 8192, True, -1)
    assert (listen.hosts, listen.port) == (("0.0.0.0",), 40061)


def test_a_model_of_gpustack_that_draws() -> None:
    parsed = parse([*run_command(), "--images", "--image-vae-tiling", "--tensor-split", "1"], {})
    text, _, hosted = compose(parsed)
    assert compose_images(parsed, text, hosted) is not None


def test_an_option_that_only_llama_box_knows_ends_no_start() -> None:
    parsed = parse([*run_command(), "--max-projected-cache", "10"], {})
    assert [warning.partition(":")[0] for warning in parsed.warnings] == ["Unknown argument"]


# ---- images ----------------------------------------------------------------------------------------------------------


def test_images_differ_in_what_they_compute_on_alone() -> None:
    """What is said of one in the documents holds for all."""
    endings = []
    for backend in ("cpu", "cuda", "rocm"):
        served = stages(backend)[-1].splitlines()
        after = served[next(i for i, line in enumerate(served) if line.startswith("COPY --from=build /opt/llamabox")) :]
        endings.append([line for line in after if not line.startswith("#")])
        labels = re.findall(r"org\.opencontainers\.image\.(\w+)=", "\n".join(served))
        assert labels == ["title", "description", "licenses", "version", "revision"]
    assert endings[0] == endings[1] == endings[2]
    assert 'VOLUME ["/models", "/var/cache/llamabox"]' in endings[0]


@pytest.mark.parametrize(
    ("backend", "variable"), [("cuda", "CMAKE_CUDA_ARCHITECTURES"), ("rocm", "CMAKE_HIP_ARCHITECTURES")]
)
def test_architectures_reach_cmake(backend: str, variable: str) -> None:
    """ggml sets its own where the variable is not there: it reads none of the environment."""
    [build] = [stage for stage in stages(backend) if " AS build" in stage.splitlines()[0] or "AS build\n" in stage]
    assert re.search(rf"export CMAKE_ARGS=.*-D{variable}=", build)


def test_the_workflow_publishes_every_image() -> None:
    text = (ROOT / ".github" / "workflows" / "images.yml").read_text(encoding="utf-8")
    built = set(re.findall(r"\{ backend: (\w+),", text))
    assert built == {path.suffix[1:] for path in ROOT.glob("Dockerfile.*")}
    used = re.findall(r"uses: \S+@(\S+)", text)
    assert used
    assert all(re.fullmatch(r"[0-9a-f]{40}", commit) for commit in used), "by commit: a tag can be moved"
