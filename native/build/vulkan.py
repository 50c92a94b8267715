"""What a build for Vulkan needs of the system, told in a sentence before minutes are spent on it."""

from __future__ import annotations

import re
from pathlib import Path

from native.build.sources import BuildError

PACKAGES = "Debian: apt-get install libvulkan-dev glslc spirv-headers; elsewhere the Vulkan SDK"

MISSING = {
    "Could NOT find Vulkan": "Vulkan's headers, its loader and the compiler glslc",
    '"SPIRV-Headers"': "SPIR-V's headers",
}
"""What CMake says of what it does not find, and what that is."""

NEEDED = {"LayerSettingEXT": "VK_EXT_layer_settings"}
"""Names of the C++ headers that ggml uses whatever the headers have, and the extension that each came with.

For those of other extensions ggml asks the headers first.
"""


def missing(said: str) -> str | None:
    """The sentence for what CMake said when it gave up; None where that was not for the lack of Vulkan."""
    for words, what in MISSING.items():
        if words in said:
            return f"a build for Vulkan needs {what}, which CMake does not find ({PACKAGES})"
    return None


def check_headers(source: Path, output: Path) -> None:
    """Raise BuildError where the headers that CMake chose in `output` lack names that `source` uses.

    The compiler would say so, in the midst of hundreds of lines and behind all shaders.
    """
    chosen = re.search(r"^Vulkan_INCLUDE_DIR:\w+=(.+)$", (output / "CMakeCache.txt").read_text(), re.MULTILINE)
    header = Path(chosen[1], "vulkan", "vulkan_core.h") if chosen else None
    if header is None or not header.is_file():
        return
    declared = header.read_text(errors="replace")
    used = [path.read_text(errors="replace") for path in source.glob("**/ggml-vulkan/*.[ch]*")]
    for name, extension in NEEDED.items():
        if f"#define {extension} " not in declared and any(f"vk::{name}" in text for text in used):
            raise BuildError(
                f"the Vulkan headers in {header.parents[1]} ({version(declared)}) are too old: they lack {extension}. "
                "Name the folder of newer ones with CMAKE_ARGS=-DVulkan_INCLUDE_DIR=DIR (docs/building.md has how)"
            )


def version(declared: str) -> str:
    """The version of a vulkan_core.h, such as 1.3.239."""
    found = re.search(r"#define VK_HEADER_VERSION (\d+)", declared)
    whole = re.search(r"#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION\(\d+, (\d+), (\d+),", declared)
    return f"{whole[1]}.{whole[2]}.{found[1]}" if whole and found else "of no known version"
