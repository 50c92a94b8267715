"""The chat templates that come with the pinned llama.cpp, read from its sdist: none of them lies in this repository."""

from __future__ import annotations

import tarfile

import pytest

from llamabox.chat.rendering.sandbox import Renderer
from native.build.cache import cache_folder
from native.build.sources import fetch, read_versions


@pytest.fixture(scope="session")
def renderers(sources: dict[str, str]) -> dict[str, Renderer]:
    """By the names of the templates' files, without suffix."""
    return {name: Renderer(source, "<s>", "</s>", None) for name, source in sources.items()}


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    """The templates' texts by the same names."""
    source = read_versions()
    archive = fetch(source, cache_folder() / "downloads")
    made = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if f"/{source.folder}/models/templates/" in member.name and member.name.endswith(".jinja"):
                file = tar.extractfile(member)
                assert file is not None
                name = member.name.rpartition("/")[2].removesuffix(".jinja")
                made[name] = file.read().decode()
    assert len(made) >= 60, "the sdist holds fewer templates than it did"
    return made
