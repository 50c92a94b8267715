"""The build's own decisions: what is pinned, what is cached, and that what goes wrong is one readable sentence."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import build_native
from llamabox.artifacts import packages
from llamabox.artifacts.manifest import MANIFEST
from native.build import libraries, module, optional, sources, vocabularies
from native.build.sources import BuildError, Source

ROOT = Path(build_native.__file__).parent


def pinned(archive: Path, **changes: str) -> Source:
    fields = {
        "package": "llama-cpp-python",
        "version": "1.2",
        "sha256": sources.sha256(archive),
        "folder": "vendor/llama.cpp",
    }
    return Source(**(fields | changes), commit="abc", number=0)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An sdist with two files of llama.cpp, dated in the future, and one file beside it."""
    path = tmp_path / "llama_cpp_python-1.2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {
            "llama_cpp_python-1.2/vendor/llama.cpp/include/llama.h": b"int llama(void);",
            "llama_cpp_python-1.2/vendor/llama.cpp/CMakeLists.txt": b"project(x)",
            "llama_cpp_python-1.2/CHANGELOG.md": b"- ggml-org/llama.cpp@0123456789ab\n- ggml-org/llama.cpp@fff0000",
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 4_000_000_000
            tar.addfile(member, io.BytesIO(content))
    return path


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_the_pinned_source_is_complete() -> None:
    source = sources.read_versions()
    assert (source.package, source.version) == ("llama-cpp-python", "0.3.36")
    assert source.archive == "llama_cpp_python-0.3.36.tar.gz"
    images = sources.read_versions(name=libraries.DIFFUSION.pinned)
    assert images.archive == "stable_diffusion_cpp_python-0.4.7.tar.gz"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[llama_cpp]\n",
        "no toml",
        '[llama_cpp]\npackage="a"\nversion="1"\nsha256="short"\nfolder="b"\ncommit="c"\nnumber=0',
    ],
)
def test_a_broken_versions_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "versions.toml"
    path.write_text(content)
    with pytest.raises(BuildError, match=r"versions\.toml"):
        sources.read_versions(path)


def test_a_wrong_hash_is_refused_and_both_hashes_are_named(archive: Path) -> None:
    wrong = pinned(archive, sha256="0" * 64)
    with pytest.raises(BuildError, match=f"{sources.sha256(archive)}.*{'0' * 64}"):
        sources.check_hash(archive, wrong)
    sources.check_hash(archive, pinned(archive))


def test_a_kept_download_is_used_only_while_its_hash_is_right(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, downloads = tmp_path / "cache", []

    def download(package: str, version: str, folder: Path, sha256: str) -> Path:
        downloads.append(version)
        return (
            Path(folder / "x.tar.gz").resolve() if (folder / "x.tar.gz").write_bytes(archive.read_bytes()) else folder
        )

    monkeypatch.setattr(sources, "download", download)
    source = pinned(archive)
    kept = sources.fetch(source, cache)
    assert sources.fetch(source, cache) == kept
    assert downloads == ["1.2"]
    kept.write_bytes(b"damaged")
    assert sources.fetch(source, cache).read_bytes() == archive.read_bytes()
    assert downloads == ["1.2", "1.2"]


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with two sdists, and a folder in which their code, or a package that they need, leaves a trace.

    pip is told to look nowhere else.
    """
    folder = tmp_path / "index"
    folder.mkdir()
    trap = "open({!r}, 'w').close()\n"
    ran = str(tmp_path / "ran")
    systems = {
        "old": None,
        "with-backend": '[build-system]\nrequires = ["not-there"]\nbuild-backend = "setuptools.build_meta"\n',
        "with-own": '[build-system]\nrequires = []\nbuild-backend = "own:hooks"\nbackend-path = ["."]\n',
    }
    for name, system in systems.items():
        file = f"{name.replace('-', '_')}-1.0"
        files = {
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            "setup.py": trap.format(ran) + f"from setuptools import setup\nsetup(name={name!r}, version='1.0')\n",
            "own.py": trap.format(ran),
            **({"pyproject.toml": system} if system else {}),
        }
        with tarfile.open(folder / f"{file}.tar.gz", "w:gz") as tar:
            for member, content in files.items():
                info = tarfile.TarInfo(f"{file}/{member}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
    for variable, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder)), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{variable}", value)
    return folder


@pytest.mark.parametrize("name", ["old", "with-backend", "with-own"])
def test_nothing_of_an_sdist_runs_when_it_is_fetched(traps: Path, tmp_path: Path, name: str) -> None:
    """pip asks an sdist for its metadata, which is code, and installs what that code needs."""
    archive = traps / f"{name.replace('-', '_')}-1.0.tar.gz"
    for sha256 in (sources.sha256(archive), ""):  # the latter is how --bump asks
        target = tmp_path / f"target{sha256[:1]}"
        target.mkdir()
        got = sources.download(name, "1.0", target, sha256)
        assert got.read_bytes() == archive.read_bytes()
        assert not (tmp_path / "ran").exists()


INSIDE_A_BUILD = """
import sys
sys.path.insert(0, {root!r})

def build_wheel(folder, settings=None, metadata=None):
    from pathlib import Path
    from setuptools import build_meta
    from native.build import sources
    for name in ("old", "with-backend", "with-own"):
        sources.download(name, "1.0", Path({target!r}, name))
    return build_meta.build_wheel(folder, settings, metadata)
"""


def test_sdists_are_fetched_from_inside_a_build_of_pip_s_which_goes_on(traps: Path, tmp_path: Path) -> None:
    """`pip install -e .` on a machine without a cache. pip names our backend in the environment, where the pip that
    the download starts must not see it, and setuptools builds afterwards."""
    project, target = tmp_path / "project", tmp_path / "target"
    for name in ("old", "with-backend", "with-own"):
        (target / name).mkdir(parents=True)
    project.mkdir()
    (project / "own.py").write_text(INSIDE_A_BUILD.format(root=str(ROOT), target=str(target)))
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
        '[project]\nname = "project"\nversion = "1.0"\n[tool.setuptools]\npy-modules = []\n'
    )
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", str(tmp_path), "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "project-1.0-py3-none-any.whl").exists()
    assert not (tmp_path / "ran").exists()


def test_what_broke_pip_itself_is_the_reason() -> None:
    said = "Looking in links\nERROR: Exception:\nTraceback:\n  File x\nBackendInvalid: not there\n"
    assert packages.reason(said, 2) == "BackendInvalid: not there"


def test_an_sdist_of_another_hash_is_not_even_unpacked(traps: Path, tmp_path: Path) -> None:
    """Unpacking this one would fail with another sentence."""
    archive = traps / "old-1.0.tar.gz"
    archive.write_bytes(b"no archive")
    with pytest.raises(BuildError, match=f"old==1.0 .*not the file that is expected.*{sources.sha256(archive)}"):
        sources.fetch(pinned(archive, package="old", version="1.0", sha256="0" * 64), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []


def test_no_pip_is_a_sentence_to_the_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "pip_is_there", lambda: False)
    with pytest.raises(BuildError, match=r"pip is not installed .*uv pip install pip"):
        sources.download("old", "1.0", tmp_path)


def test_a_failed_download_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BuildError, match=r"could not download llama-cpp-python==9\.9\.9 .*--llama-cpp DIR"):
        sources.download("llama-cpp-python", "9.9.9", tmp_path)


def test_unpacking_takes_one_folder_and_dates_it_in_the_past(archive: Path, tmp_path: Path) -> None:
    """Ninja regenerates its manifest for ever when a source file is younger than the clock says."""
    target = tmp_path / "source"
    for _ in range(2):
        sources.unpack(archive, pinned(archive), target)
    files = {str(path.relative_to(target)): path.stat().st_mtime for path in target.rglob("*") if path.is_file()}
    assert files == {"include/llama.h": sources.FIXED_TIME, "CMakeLists.txt": sources.FIXED_TIME}
    assert sources.commit_of(archive) == "012345678"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x-1/vendor/llama.cpp/../../../out", tarfile.REGTYPE),
        ("/x-1/vendor/llama.cpp/out", tarfile.REGTYPE),
        ("x-1/vendor/llama.cpp/out", tarfile.SYMTYPE),
        ("x-1/vendor/llama.cpp/out", tarfile.LNKTYPE),
        ("x-1/vendor/llama.cpp/out", tarfile.FIFOTYPE),
    ],
)
def test_unpacking_writes_files_below_its_folder_alone(tmp_path: Path, name: str, kind: bytes) -> None:
    """By itself: tarfile's filters came with Python 3.11.4, and Debian 12 has 3.11.2."""
    path = tmp_path / "in" / "x-1.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "../../../../etc/passwd"
        tar.addfile(member)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BuildError, match=r"x-1\.tar\.gz (is not an sdist: '.*out'|has no folder)"):
        sources.unpack(path, pinned(path), tmp_path / "in" / "deep" / "source")
    assert {new for new in set(tmp_path.rglob("*")) - before if not new.is_dir()} == set()


def test_a_program_stays_one_when_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x-1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, mode in (("run.sh", 0o4775), ("text", 0o666)):
            member = tarfile.TarInfo(f"x-1/vendor/llama.cpp/{name}")
            member.mode = mode
            tar.addfile(member)
    sources.unpack(path, pinned(path), tmp_path / "source")
    modes = {entry.name: entry.stat().st_mode & 0o7777 for entry in (tmp_path / "source").iterdir()}
    assert modes == {"run.sh": 0o755, "text": 0o644}


def test_unpacking_without_the_folder_is_a_sentence(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no folder vendor/other"):
        sources.unpack(archive, pinned(archive, folder="vendor/other"), tmp_path / "source")


def test_a_checkout_is_known_by_content_not_by_dates_or_git(archive: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    sources.unpack(archive, pinned(archive), checkout)
    before = sources.checkout_source(checkout)
    os.utime(checkout / "CMakeLists.txt", (4_000_000_000, 4_000_000_000))
    (checkout / "build").mkdir()
    (checkout / "build" / "object.o").write_text("x")
    assert sources.checkout_source(checkout) == before
    (checkout / "CMakeLists.txt").write_text("project(y)")
    assert sources.checkout_source(checkout) != before
    copy = tmp_path / "copy"
    sources.copy_checkout(checkout, copy)
    assert sources.tree_hash(copy) == sources.tree_hash(checkout)
    assert not (copy / "build").exists()
    assert {path.stat().st_mtime for path in copy.rglob("*.txt")} == {sources.FIXED_TIME}


def test_a_folder_that_is_not_llama_cpp_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"include/llama\.h"):
        sources.checkout_source(tmp_path)
    options = build_native.Options(stable_diffusion_cpp=tmp_path)
    with pytest.raises(BuildError, match=r"not a stable-diffusion\.cpp source folder: .*include/stable-diffusion\.h"):
        build_native.source_of(options, libraries.DIFFUSION)


def test_bumping_rewrites_what_is_pinned_and_nothing_else(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sources, "download", lambda package, version, folder: Path(os.rename(archive, folder / "x") or folder / "x")
    )
    digest = sources.sha256(archive)
    new, text = sources.bump("1.2", tmp_path / "cache")
    written = tmp_path / "versions.toml"
    written.write_text(text)
    assert sources.read_versions(written) == new
    assert (new.version, new.sha256, new.commit) == ("1.2", digest, "012345678")
    old = sources.VERSIONS.read_text().splitlines()
    assert sum(a != b for a, b in zip(old, text.splitlines(), strict=True)) == 3


# ---- headers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def headers() -> list[Path]:
    """Where the real headers lie: in the cache, from the build that is installed."""
    options, source = build_native.Options(), sources.read_versions()
    return [build_native.built_libraries(options, source, build_native.recipe(options, source)) / "include"]


@pytest.fixture
def trimmed(tmp_path: Path) -> Path:
    """A native folder of its own, whose cdef can be changed."""
    return Path(shutil.copytree(ROOT / "native", tmp_path / "native"))


def test_every_file_that_is_added_to_llama_cpp_counts(trimmed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "NATIVE", trimmed)
    digests = {libraries.LLAMA.included()}
    for path in (trimmed / "added").iterdir():
        path.write_text(path.read_text() + "\n")
        digests.add(libraries.LLAMA.included())
    assert len(digests) == 1 + len(list((trimmed / "added").iterdir()))


def test_llama_cpp_may_be_built_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.read_versions()

    def includes(options: build_native.Options) -> tuple[str, list[str]]:
        flags = build_native.unrecorded_flags(options, source, libraries.LLAMA)
        recipe = build_native.recipe(options, source)
        return recipe["include"], [flag for flag in flags if "_INCLUDE=" in flag]

    digest, (flag,) = includes(build_native.Options())
    assert digest == libraries.LLAMA.included()
    assert Path(flag.removeprefix("-DCMAKE_PROJECT_llama.cpp_INCLUDE=")).is_file()
    monkeypatch.setenv("LLAMABOX_WITHOUT_ADDED", "1")
    for options in (build_native.Options(added=False), build_native.pep517_options(None)):
        assert includes(options) == ("", [])


def test_what_is_added_is_left_out_where_it_does_not_fit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a checkout, whose insides may be other ones; the pinned sources fit."""
    unpacked = tmp_path / "source"
    source = build_native.source_of(build_native.Options())
    sources.unpack(sources.fetch(source, build_native.cache_folder() / "downloads"), source, unpacked)
    options = build_native.Options(llama_cpp=unpacked, images=False)
    assert build_native.fitting(options) == options
    traits = unpacked / "ggml" / "src" / "ggml-cpu" / "traits.h"
    traits.write_text(traits.read_text().replace("class tensor_traits", "class tensor_trait"))
    assert build_native.fitting(options).added is False
    assert "native/added does not fit" in capfd.readouterr().err
    assert build_native.fitting(build_native.Options(added=False, llama_cpp=unpacked)).added is False
    assert build_native.check(options) == ["no kernels of native/added, which do not fit its insides"]


def test_the_cdef_fits_the_headers(headers: list[Path], tmp_path: Path) -> None:
    module.check(headers, tmp_path)


@pytest.fixture(scope="session")
def image_headers() -> list[Path]:
    options = build_native.Options()
    source = build_native.source_of(options, libraries.DIFFUSION)
    made_of = build_native.recipe(options, source, libraries.DIFFUSION)
    return [build_native.built_libraries(options, source, made_of, libraries.DIFFUSION) / "include"]


def test_the_cdef_fits_the_headers_of_the_library_that_draws(image_headers: list[Path], tmp_path: Path) -> None:
    module.check(image_headers, tmp_path, module=module.DIFFUSION)


def test_the_module_fits_headers_without_heads_of_multi_token_prediction(headers: list[Path], tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(headers[0], older)
    text = (older / "llama.h").read_text()
    for line in (
        "        bool load_mtp;        // whether to load MTP layers\n",
        "        struct llama_context * ctx_other;\n",
        "    LLAMA_API int32_t llama_model_n_layer_nextn(const struct llama_model * model);\n",
    ):
        assert text.count(line) == 1, line
        text = text.replace(line, "")
    (older / "llama.h").write_text(text)
    assert "-DLB_LLAMA_MTP" in module.probed(headers, module.LLAMA)
    assert "-DLB_LLAMA_MTP" not in module.probed([older], module.LLAMA)
    module.check([older], tmp_path)


OLDER = (
    # Of the headers that llama.cpp had half a year earlier, what is told apart: pattern, and what stood there.
    ("llama.h", r"    enum llama_load_mode \{.*?\};\n", ""),
    ("llama.h", r"    LLAMA_API [^\n]*llama_load_mode_\w+\([^\n]*\n", ""),
    ("llama.h", r"        enum llama_load_mode  load_mode;[^\n]*\n", "bool use_mmap;\nbool use_mlock;\n"),
    ("llama.h", r"    LLAMA_API const char \* llama_ftype_name\([^\n]*\n", ""),
    ("llama.h", r"    LLAMA_API enum llama_ftype llama_model_ftype\([^\n]*\n", ""),
    ("llama.h", r"    LLAMA_API const char \* llama_version\(void\);\n", ""),
    ("llama.h", r"    LLAMA_API const llama_token \* llama_vocab_get_suppress_tokens\([^;]*;\n", ""),
    ("llama.h", r"        void \(\*copy_state\)\([^\n]*\n", ""),
    ("llama.h", r"    LLAMA_API void +llama_sampler_copy +\([^\n]*\n", ""),
    ("llama.h", r"(?<=llama_sampler_init_penalties\()\s*int32_t   n_vocab,", ""),
    ("llama.h", r"(llama_sampler_init_dry\(\s*const struct llama_vocab \*  vocab,)", r"\1 int32_t n_ctx_train,"),
    ("mtmd.h", r"MTMD_API int32_t mtmd_tokenize_from_parts\([^;]*;\n", ""),
)


def older_headers(headers: list[Path], target: Path) -> Path:
    shutil.copytree(headers[0], target)
    for name, pattern, instead in OLDER:
        path = target / name
        text, n_found = re.subn(pattern, instead, path.read_text(), flags=re.DOTALL)
        assert n_found, pattern
        path.write_text(text)
    return target


def test_what_a_feature_alone_needs_may_be_missing(headers: list[Path], tmp_path: Path) -> None:
    assert module.check(headers, tmp_path) == []
    older = older_headers(headers, tmp_path / "older")
    lost = module.check([older], tmp_path)
    assert module.linked(headers) == ["mtmd", *module.linked([older])]  # which is built where it can be used
    assert [sentence.partition(":")[0] for sentence in lost] == [
        "tokens that a model bars for good (tokenizer.ggml.suppress_tokens) are not barred",
        "no pictures and no sound",
    ]


def test_what_is_optional_is_declared_by_the_pinned_headers(headers: list[Path]) -> None:
    """Else a feature would be left out of every build, and nobody would hear of it."""
    text = optional.text_of(headers, module.LLAMA.cdefs)
    assert [part for part in optional.PARTS if not optional.declares(text, part)] == []


def test_parts_of_a_cdef_are_chosen_by_the_headers() -> None:
    cdef = "int a;\n//if version\nint b;\n//if media\nint c;\n//end\n//else\nint d;\n//end\nint e;\n"
    both, one, none = "llama_version mtmd_tokenize_from_parts", "llama_version", "// llama_version"
    chosen = [optional.chosen(cdef, text).split() for text in (None, both, one)]
    assert [found[1::2] for found in chosen] == [["a;", "b;", "c;", "e;"]] * 2 + [["a;", "b;", "e;"]]
    stripped = optional.COMMENT.sub("", none)
    assert optional.chosen(cdef, stripped).split()[1::2] == ["a;", "d;", "e;"]


def test_the_module_fits_newer_headers_too(image_headers: list[Path], tmp_path: Path) -> None:
    """Later versions lost two fields of the context's parameters, and changed two functions."""
    name = "stable-diffusion.h"
    text = (image_headers[0] / name).read_text()
    for old, new in {
        "    bool vae_decode_only;\n": "",
        "    bool free_params_immediately;\n": "",
        "sd_image_t* generate_image(sd_ctx_t* sd_ctx, const sd_img_gen_params_t* sd_img_gen_params)": (
            "bool generate_image(sd_ctx_t* sd_ctx, const sd_img_gen_params_t* params, sd_image_t** images, int* n)"
        ),
        "int tile_size);": "int tile_size, const char* backend, const char* params_backend);",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / name).write_text(text)
    module.check([newer], tmp_path, module=module.DIFFUSION)


@pytest.mark.parametrize(
    ("header", "declaration", "symbol"),
    [
        ("llama.h", "int32_t llama_no_such_function(int32_t value);", "llama_no_such_function"),
        ("ggml-backend.h", "enum ggml_backend_dev_caps_bits { GGML_NO_SUCH_VALUE, ... };", "GGML_NO_SUCH_VALUE"),
        ("mtmd.h", "struct mtmd_helper_no_such { int32_t a; ...; };", "mtmd_helper_no_such"),
        ("llama.h", "struct llama_perf_sampler_data { int32_t no_such_member; ...; };", "no_such_member"),
    ],
)
def test_a_header_that_lacks_a_symbol_is_named_with_it(
    headers: list[Path], trimmed: Path, tmp_path: Path, header: str, declaration: str, symbol: str
) -> None:
    cdef = trimmed / "cdef" / header
    cdef.write_text(f"{cdef.read_text()}\n{declaration}\n")
    with pytest.raises(BuildError) as refused:
        module.check(headers, tmp_path, trimmed)
    assert f"{symbol} ({header})" in str(refused.value)
    assert str(headers[0]) in str(refused.value)


def test_a_function_with_other_parameters_is_found(headers: list[Path], trimmed: Path, tmp_path: Path) -> None:
    cdef = trimmed / "cdef" / "llama.h"
    cdef.write_text(
        cdef.read_text().replace(
            "llama_vocab_n_tokens(const struct llama_vocab * vocab)",
            "llama_vocab_n_tokens(const struct llama_model * model)",
        )
    )
    with pytest.raises(BuildError, match="llama_vocab_n_tokens"):
        module.check(headers, tmp_path, trimmed)


def test_both_compilers_errors_name_the_symbol() -> None:
    gcc = "a.c:1:2: error: implicit declaration of function 'llama_decode'; did you mean 'x'?"
    clang = "a.c:1:2: error: call to undeclared function 'llama_decode'; ISO C99 and later do not support it"
    for errors in (gcc, clang):
        assert "llama_decode (llama.h)" in module.explain(errors, [Path("headers")])


# ---- building --------------------------------------------------------------------------------------------------------


def test_a_missing_compiler_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/no/such/cc -O2")
    with pytest.raises(BuildError, match=r"no C compiler: '/no/such/cc -O2'.*apt-get install"):
        libraries.compilers()


def test_missing_headers_of_python_are_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian's python3 comes without."""
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BuildError, match=rf"{tmp_path} has no Python\.h: .*apt-get install python3-dev"):
        module.check([], tmp_path)


def test_a_missing_tool_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="pip install no-such-tool"):
        libraries.tool("no-such-tool")


def test_words_for_cmake_and_compilers_may_be_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CMAKE_ARGS", """-DA='x y' -DB="1;2"  -DC=z""")
    assert libraries.cmake_arguments() == ["-DA=x y", "-DB=1;2", "-DC=z"]
    compiler = tmp_path / "my compilers" / "cc"
    compiler.parent.mkdir()
    compiler.symlink_to(str(shutil.which("cc")))
    monkeypatch.setenv("CC", f"'{compiler}' -O2")
    assert libraries.compilers()["C"].startswith(f"'{compiler}' -O2: ")
    for variable, ask in (("CMAKE_ARGS", libraries.cmake_arguments), ("CC", libraries.compilers)):
        monkeypatch.setenv(variable, "it's")
        with pytest.raises(BuildError, match=f"{variable} is not a list of words .No closing quotation.: it's"):
            ask()


def test_a_failing_command_shows_the_end_of_its_output_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys\nfor number in range(100): print('line', number)\nsys.exit(3)"
    with pytest.raises(BuildError) as failed:
        libraries.run_logged([sys.executable, "-c", script], log, lambda _: None, "compiling")
    message = str(failed.value)
    assert str(log) in message
    assert "line 99" in message
    assert "line 60" not in message
    assert "line 0" in log.read_text()


def test_each_backend_and_portability_is_another_build() -> None:
    flags = {
        tuple(libraries.cmake_flags(backend, portable=portable))
        for backend in libraries.BACKENDS
        for portable in (True, False)
    }
    assert len(flags) == 2 * len(libraries.BACKENDS)
    with pytest.raises(BuildError, match="choose one of cpu, cuda"):
        libraries.cmake_flags("tpu", portable=False)


def test_each_backend_is_another_build_of_the_library_that_draws() -> None:
    found = {backend: libraries.diffusion_flags(backend, portable=False) for backend in libraries.BACKENDS}
    for backend, flag in {"cuda": "SD_CUDA", "rocm": "SD_HIPBLAS", "vulkan": "SD_VULKAN", "metal": "SD_METAL"}.items():
        assert f"-D{flag}=ON" in found[backend]
        assert f"-D{flag}=ON" not in found["cpu"]
    portable = libraries.diffusion_flags("cpu", portable=True)
    assert "-DGGML_NATIVE=OFF" in portable
    assert libraries.MACOS or "-DCMAKE_INSTALL_RPATH=$ORIGIN" in portable, "so that it finds the runtime beside it"
    with pytest.raises(BuildError, match="choose one of cpu, cuda"):
        libraries.diffusion_flags("tpu", portable=False)


@pytest.mark.skipif(libraries.MACOS, reason="a bare macOS has all that its libraries need")
def test_a_portable_prefix_carries_the_runtime_of_openmp(tmp_path: Path) -> None:
    source = tmp_path / "sum.c"
    source.write_text(
        "int sum(int n) {\n  int s = 0;\n#pragma omp parallel for reduction(+ : s)\n"
        "  for (int i = 0; i < n; i++) s += i;\n  return s;\n}\n"
    )
    for name, flags in {"lone": [], "parallel": ["-fopenmp", "-Wl,-rpath,$ORIGIN", "-Wl,--disable-new-dtags"]}.items():
        folder = tmp_path / name
        folder.mkdir()
        library = folder / f"lib{name}.so"
        command = [
            *shlex.split(os.environ.get("CC", "cc")),
            "-shared",
            "-fPIC",
            *flags,
            str(source),
            "-o",
            str(library),
        ]
        subprocess.run(command, check=True)
        carried = libraries.carry_runtimes(folder)
        beside = sorted(path.name for path in folder.iterdir() if path != library)
        if name == "lone":
            assert (carried, beside) == ([], [])
            continue
        [runtime] = carried
        assert beside == sorted(["OpenMP-LICENSE", runtime])
        found = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
        assert f"{runtime} => {folder / runtime}" in found, "it is found beside the library, and not in the system"


@pytest.mark.skipif(libraries.MACOS, reason="its assembler has other words, and the sources stay as they are")
def test_a_vocabulary_is_the_same_bytes_however_it_is_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / vocabularies.FOLDER
    folder.mkdir(parents=True)
    (folder / "words.hpp").write_text(
        "static const unsigned char first[] = {\n  0x00, 0xff,\n  0x22,\n};\n"
        "static const unsigned char second[] = {\n  0x41\n};\n"
    )
    other = "static const unsigned char third[] = { 'a' };\n"
    (folder / "other.hpp").write_text(other)
    (folder / "main.cpp").write_text(
        '#include <cstdio>\n#include "words.hpp"\n#include "other.hpp"\n'
        "int main() { fwrite(first, 1, sizeof(first), stdout); fwrite(second, 1, sizeof(second), stdout);"
        " fwrite(third, 1, sizeof(third), stdout); }\n"
    )

    def printed() -> bytes:
        program = tmp_path / "program"
        subprocess.run(
            [*shlex.split(os.environ.get("CXX", "c++")), str(folder / "main.cpp"), "-o", program], check=True
        )
        return subprocess.run([program], capture_output=True, check=True).stdout

    assert printed() == b"\x00\xff\x22Aa"
    assert vocabularies.shorten(tmp_path / "a folder") == 2
    assert ".incbin" in (folder / "words.hpp").read_text()
    assert (folder / "other.hpp").read_text() == other
    assert printed() == b"\x00\xff\x22Aa"
    assert vocabularies.shorten(tmp_path / "a folder") == 0


def test_ninja_s_lines_become_progress(capsys: pytest.CaptureFixture[str]) -> None:
    on_line = libraries.progress(build_native.Progress("x"))
    for number in range(1, 201):
        on_line(f"[{number}/200] Building CXX object\n")
    on_line("warning: something\n")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "x: 1/200 (0 %)"
    assert said[-1] == "x: 200/200 (100 %)"
    assert len(said) == 11


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    inside, order = threading.Event(), []
    lock = tmp_path / "locks" / "x.lock"

    def second() -> None:
        inside.wait()
        with build_native.locked(lock):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with build_native.locked(lock):
        inside.set()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_prefix_replaces_a_prefix_but_never_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tmp_path / "built"
    built.mkdir()
    (built / MANIFEST).write_text("{}")
    monkeypatch.setattr(build_native, "build_prefix", lambda options: built)
    target = tmp_path / "deep" / "prefix"
    options = build_native.Options()
    build_native.make(options, target)
    (target / "stale.so").touch()
    build_native.make(options, target)
    assert [path.name for path in target.iterdir()] == [MANIFEST]
    assert [path.name for path in target.parent.iterdir()] == ["prefix"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    with pytest.raises(BuildError, match="not a native prefix"):
        build_native.make(options, precious)
    assert (precious / "thesis.txt").exists()


def test_errors_end_the_command_with_1_and_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert build_native.main(["--llama-cpp", str(tmp_path), "--prefix", str(tmp_path / "p")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("build_native.py: ")
    assert said.count("\n") == 1


def test_pip_settings_come_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAMABOX_BACKEND", "vulkan")
    monkeypatch.setenv("LLAMABOX_PORTABLE", "1")
    monkeypatch.setenv("LLAMABOX_LLAMA_CPP", str(tmp_path))
    monkeypatch.setenv("LLAMABOX_JOBS", "3")
    monkeypatch.setenv("LLAMABOX_WITHOUT_IMAGES", "1")
    monkeypatch.setenv("LLAMABOX_STABLE_DIFFUSION_CPP", str(tmp_path))
    expected = build_native.Options(
        backend="vulkan", portable=True, llama_cpp=tmp_path, images=False, stable_diffusion_cpp=tmp_path, jobs=3
    )
    assert build_native.pep517_options(None) == expected
    assert build_native.pep517_options({"backend": "cuda"}).backend == "cuda"
    monkeypatch.setenv("LLAMABOX_JOBS", "many")
    with pytest.raises(BuildError, match="jobs must be a number"):
        build_native.pep517_options(None)


def test_the_recipe_names_everything_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.read_versions()
    base = build_native.digest(build_native.recipe(build_native.Options(), source))
    assert build_native.digest(build_native.recipe(build_native.Options(jobs=7), source)) == base
    others = [build_native.Options(backend="cuda"), build_native.Options(portable=True)]
    digests = {build_native.digest(build_native.recipe(options, source)) for options in others}
    monkeypatch.setenv("CFLAGS", "-O1")
    digests.add(build_native.digest(build_native.recipe(build_native.Options(), source)))
    assert len({base, *digests}) == 4


def test_a_change_to_one_library_is_not_a_change_to_the_other(tmp_path: Path) -> None:
    def names(options: build_native.Options) -> dict[str, str]:
        return {
            project.name: build_native.digest(
                build_native.recipe(options, build_native.source_of(options, project), project)
            )
            for project in options.projects
        }

    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "stable-diffusion.h").touch()
    pinned = names(build_native.Options())
    other = names(build_native.Options(stable_diffusion_cpp=tmp_path))
    assert other["llama.cpp"] == pinned["llama.cpp"]
    assert other["stable-diffusion.cpp"] != pinned["stable-diffusion.cpp"]
    assert names(build_native.Options(images=False)) == {"llama.cpp": pinned["llama.cpp"]}
