"""A build for Vulkan: what the system lacks is a sentence, said before anything is compiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from native.build import libraries
from native.build.sources import BuildError

PROJECT = """\
cmake_minimum_required(VERSION 3.19)
project(tried LANGUAGES NONE)
"""
NOWHERE = [f"-DCMAKE_FIND_ROOT_PATH_MODE_{kind}=ONLY" for kind in ("PROGRAM", "LIBRARY", "INCLUDE", "PACKAGE")]
"""CMake looks below CMAKE_FIND_ROOT_PATH alone."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A source folder that looks for Vulkan as ggml does, and uses what ggml uses of it."""
    source = tmp_path / "source"
    backend = source / "ggml" / "src" / "ggml-vulkan"
    backend.mkdir(parents=True)
    (source / "CMakeLists.txt").write_text(PROJECT + "find_package(Vulkan COMPONENTS glslc REQUIRED)\n")
    (backend / "ggml-vulkan.cpp").write_text("std::vector<vk::LayerSettingEXT> settings;\n")
    return source


def headers(folder: Path, version: tuple[int, int, int], extensions: str = "") -> Path:
    """An include folder of Vulkan headers."""
    (folder / "vulkan").mkdir(parents=True)
    major, minor, patch = version
    (folder / "vulkan" / "vulkan_core.h").write_text(
        f"#define VK_HEADER_VERSION {patch}\n"
        f"#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, {major}, {minor}, VK_HEADER_VERSION)\n{extensions}"
    )
    return folder


def build(source: Path, *flags: str) -> None:
    folder = source.parent
    libraries.build(source, folder / "build", list(flags), 1, folder / "log", lambda _: None)


def given(include: Path) -> list[str]:
    """Flags for a system that has all of Vulkan, with these headers."""
    return [f"-DVulkan_INCLUDE_DIR={include}", "-DVulkan_LIBRARY=/libvulkan.so", "-DVulkan_GLSLC_EXECUTABLE=/glslc"]


def test_too_old_headers_are_named_with_their_version_before_anything_is_compiled(
    project: Path, tmp_path: Path
) -> None:
    include = headers(tmp_path / "include", (1, 3, 239))
    with pytest.raises(BuildError, match=r"1\.3\.239.*lack VK_EXT_layer_settings.*Vulkan_INCLUDE_DIR") as caught:
        build(project, *given(include))
    assert str(include) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headers_with_what_is_used_are_built_with(project: Path, tmp_path: Path) -> None:
    build(project, *given(headers(tmp_path / "include", (1, 4, 309), "#define VK_EXT_layer_settings 1\n")))


def test_old_headers_do_for_sources_that_use_nothing_newer(project: Path, tmp_path: Path) -> None:
    (project / "ggml" / "src" / "ggml-vulkan" / "ggml-vulkan.cpp").write_text("vk::Instance instance;\n")
    build(project, *given(headers(tmp_path / "include", (1, 3, 239))))


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("Vulkan COMPONENTS glslc", "glslc"),
        ("SPIRV-Headers CONFIG", "SPIR-V's headers"),
    ],
)
def test_a_system_without_vulkan_s_packages_is_told_which_to_install(
    project: Path, tmp_path: Path, wanted: str, named: str
) -> None:
    (project / "CMakeLists.txt").write_text(PROJECT + f"find_package({wanted} REQUIRED)\n")
    with pytest.raises(BuildError, match=f"{named}.*apt-get install libvulkan-dev glslc spirv-headers") as caught:
        build(project, f"-DCMAKE_FIND_ROOT_PATH={tmp_path / 'empty'}", *NOWHERE)
    assert "\n" not in str(caught.value)


def test_another_reason_for_cmake_to_give_up_is_shown_as_it_is(project: Path) -> None:
    (project / "CMakeLists.txt").write_text(PROJECT + 'message(FATAL_ERROR "no such luck")\n')
    with pytest.raises(BuildError, match="no such luck"):
        build(project)
