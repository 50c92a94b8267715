"""What is made of facts that cannot be had here, and how findings are shown."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llamabox.doctor import accelerators, command, libraries, limits, places, processor
from llamabox.doctor.child import TIMED_OUT, Told, ask, read
from llamabox.doctor.findings import Finding, Level, as_json, as_text, exit_status, ok, problem, warning
from llamabox.doctor.libraries import Libraries
from llamabox.doctor.system import System
from llamabox.errors import NativeMissing, to_wire
from tests.doctor.made_system import AVX2, add_gpu, made_system

PREFIX = {"path": "/p", "version": "1", "commit": "c", "backend": "cpu", "portable": False, "images": None}
CPU = {"name": "CPU", "description": "d", "kind": "cpu", "backend": "CPU", "memory_free": 1, "memory_total": 1}
GPU = {**CPU, "name": "CUDA0", "kind": "gpu", "backend": "CUDA"}


def told(*steps: tuple[str, dict[str, Any]], begun: str = "", status: int = 0, err: bytes = b"") -> Told:
    """Of a child that made these steps, and ended in `begun`."""
    lines = []
    for name, found in steps:
        lines += [{"begin": name}, {"step": name, **found}]
    if begun:
        lines.append({"begin": begun})
    return read(b"\n".join(json.dumps(line).encode() for line in lines), err, status)


def well(
    *more: tuple[str, dict[str, Any]], devices: tuple[Any, ...] = (CPU,), said: tuple[str, ...] = (), **prefix: Any
) -> Told:
    """Of a child that came to its end: libraries with AVX2, and a CPU unless told otherwise."""
    info = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | LLAMAFILE = 1 |"
    found = {"devices": list(devices), "system_info": info, "kernels": "AVX2", "said": list(said)}
    return told(("prefix", {**PREFIX, **prefix}), ("load", {"version": "1"}), ("devices", found), *more)


def worst(findings: Iterable[Finding]) -> Finding:
    return max(findings, key=lambda found: list(Level).index(found.level))


@pytest.mark.parametrize(
    ("status", "err", "says", "advises"),
    [
        (-signal.SIGILL, b"", "SIGILL", "--portable"),
        (-signal.SIGKILL, b"", "SIGKILL", "memory"),
        (-signal.SIGSEGV, b"ggml: assert\n", "SIGSEGV (Segmentation fault): ggml: assert", "report"),
        (1, b"Traceback\nMemoryError\n", "exited with code 1: MemoryError", "memory"),
        (1, b"ModuleNotFoundError: No module named 'numpy'\n", "No module named 'numpy'", "with pip"),
        (TIMED_OUT, b"", "did not end", "build_native.py"),
    ],
)
@pytest.mark.parametrize("step", ["load", "devices", "compute CPU"])
def test_a_child_that_ends_says_where(step: str, status: int, err: bytes, says: str, advises: str) -> None:
    steps = [("prefix", PREFIX)] if step == "load" else []
    child = told(*steps, begun=step, status=status, err=err)
    examined = libraries.self_test if step.startswith("compute") else libraries.examine
    [found] = examined(Libraries(child))
    assert found.level is Level.PROBLEM
    assert says in found.text
    assert advises in found.advice


def test_what_an_older_llama_cpp_lacks_is_told() -> None:
    found = list(libraries.examine(Libraries(well(lacks=["no heads"]))))
    assert [one.level for one in found] == [Level.OK, Level.WARNING]
    assert "no heads" in found[1].text


def test_a_device_that_computes_wrongly_is_named() -> None:
    right = {"tokens": [1, 2], "expected": [1, 2], "seconds": 0.1}
    wrong = {**right, "tokens": [1, -1]}
    child = well(("compute CPU", right), ("compute CUDA0", wrong), devices=(CPU, GPU))
    first, second = libraries.self_test(Libraries(child))
    assert (first.level, second.level) == (Level.OK, Level.PROBLEM)
    assert "CUDA0 computes wrongly" in second.text
    assert "-dev none" in second.advice


def test_a_slow_device_is_a_warning() -> None:
    child = well(("compute CPU", {"tokens": [1], "expected": [1], "seconds": 9.0}))
    assert worst(libraries.self_test(Libraries(child))).level is Level.WARNING


@pytest.mark.parametrize("wanted", [True, False])
def test_images_are_a_problem_only_where_they_are_wanted(wanted: bool) -> None:
    missing = told(("load", to_wire(NativeMissing('/p was built without images: run "x"'))))
    assert worst(libraries.examine_images(missing, wanted)).level is (Level.PROBLEM if wanted else Level.OK)
    crashed = told(begun="load", status=-signal.SIGILL)
    assert worst(libraries.examine_images(crashed, wanted)).level is (Level.PROBLEM if wanted else Level.WARNING)


@pytest.mark.parametrize(
    ("flags", "portable", "level", "says"),
    [
        (AVX2, False, Level.OK, "Made Processor"),
        (AVX2 + " avx512f avx512_vnni", False, Level.WARNING, "do not use AVX512, AVX512_VNNI"),
        (AVX2 + " avx512f", True, Level.OK, "Made Processor"),
        ("pni avx", False, Level.PROBLEM, "use AVX2, which this processor lacks"),
    ],
)
def test_instructions_of_processor_and_libraries(
    flags: str, portable: bool, level: Level, says: str, tmp_path: Path
) -> None:
    system = made_system(tmp_path / "a", flags=flags)
    found = worst(processor.examine(system, Libraries(well(portable=portable)), 1))
    assert found.level is level
    assert says in found.text


def test_a_portable_library_that_draws_needs_avx2(tmp_path: Path) -> None:
    built = Libraries(well(portable=True, images={"portable": True}))
    found = list(processor.examine(made_system(tmp_path / "a", flags="pni avx"), built, 1))
    assert any("draws needs AVX2" in one.text for one in found)


def test_an_illegal_instruction_is_explained_also_where_the_build_tells_nothing(tmp_path: Path) -> None:
    child = told(("prefix", PREFIX), begun="devices", status=-signal.SIGILL)
    found = worst(processor.examine(made_system(tmp_path / "a", flags=AVX2), Libraries(child), 1))
    assert "built on another one" in found.text


def test_a_gpu_that_the_libraries_do_not_use_is_told(tmp_path: Path) -> None:
    add_gpu(tmp_path, "0x10de")
    found = worst(accelerators.examine(System(tmp_path), Libraries(well()), (), -1))
    assert found.level is Level.WARNING
    assert "GPU of NVIDIA" in found.text
    assert "LLAMABOX_BACKEND=cuda" in found.advice


def test_what_a_library_says_of_its_driver_is_repeated(tmp_path: Path) -> None:
    built = Libraries(well(backend="cuda", said=("no CUDA driver is installed",)))
    found = worst(accelerators.examine(System(tmp_path), built, (), -1))
    assert "no CUDA driver is installed" in found.text


def test_a_gpu_behind_a_missing_driver_is_told_apart_from_none(tmp_path: Path) -> None:
    for expected in ("none is seen on the bus", "the bus shows one of NVIDIA"):
        found = worst(accelerators.examine(System(tmp_path), Libraries(well(backend="cuda")), (), -1))
        assert expected in found.text
        if expected.startswith("none"):
            add_gpu(tmp_path, "0x10de")


def test_options_that_name_a_device_that_is_not_there(tmp_path: Path) -> None:
    named = worst(accelerators.examine(System(tmp_path), Libraries(well()), ("CUDA0",), -1))
    assert (named.level, "there are CPU" in named.text) == (Level.PROBLEM, True)
    layers = worst(accelerators.examine(System(tmp_path), Libraries(well()), ("none",), 9))
    assert (layers.level, "-ngl 9" in layers.text) == (Level.WARNING, True)


@pytest.mark.parametrize(
    ("limit", "level"), [((64, 64), Level.PROBLEM), ((64, 1024), Level.WARNING), ((1024, 65536), Level.OK)]
)
def test_open_files(limit: tuple[int, int], level: Level) -> None:
    assert limits.examine_files(4096, limit).level is level


def test_memory_that_others_have_is_a_warning(tmp_path: Path) -> None:
    system = made_system(tmp_path / "a")
    system.meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable: 1000000 kB\n")
    assert worst(limits.examine_memory(system, 2 << 30, False, False)).level is Level.WARNING
    assert worst(limits.examine_memory(system, 2 << 30, True, False)).level is Level.OK, "a GPU has it"
    assert worst(limits.examine_memory(system, 20 << 30, False, False)).level is Level.PROBLEM


def test_few_processes(tmp_path: Path) -> None:
    system = made_system(tmp_path / "a")
    folder = tmp_path / "a" / "groups" / "fs" / "unified" / "box"
    assert list(limits.examine_threads(system)) == []
    (folder / "pids.max").write_text("20\n")
    assert worst(limits.examine_threads(system)).level is Level.PROBLEM


def test_a_llamabox_that_runs_already_is_no_stranger(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    row = "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0"
    (proc / "net" / "tcp").write_text(f"header\n{row}\n")
    (proc / "77" / "fd").mkdir(parents=True)
    (proc / "77" / "fd" / "3").symlink_to("socket:[4711]")
    for words, is_ours in (("python3 -m llamabox --api-key secret", True), ("nginx -g x", False)):
        (proc / "77" / "cmdline").write_bytes(words.replace(" ", "\0").encode() + b"\0")
        holder = places.holder_of(8080, System(tmp_path))
        assert holder is not None
        assert (holder[0], "secret" in holder[1], "llamabox" in holder[1]) == (77, False, is_ours)
    assert places.holder_of(8081, System(tmp_path)) is None


def test_warnings_leave_the_exit_status_at_0() -> None:
    found = [ok("a", "is so"), warning("b", "is slow", "do x")]
    assert exit_status(found) == 0
    assert exit_status([*found, problem("c", "is broken", "do y")]) == 1


def test_the_text_has_a_line_a_finding_and_what_to_do_below() -> None:
    found = [ok("memory", "much"), warning("files", "few", "raise it"), problem("model", "none " * 40, "name one")]
    lines = as_text(found).splitlines()
    assert lines[0].split() == ["memory", "ok", "much"]
    assert lines[1].split() == ["files", "WARNING", "few"]
    assert lines[2].split() == ["->", "raise", "it"]
    assert lines[-1] == "1 problem, 1 warning"
    assert max(map(len, lines)) <= 118
    assert as_text([ok("a", "b")]).splitlines()[-1] == "all well"


def test_the_json_has_the_same() -> None:
    found = [ok("memory", "much", total=5), problem("model", "none", "name one")]
    report = json.loads(as_json(found))
    assert (report["status"], report["problems"], report["warnings"]) == (1, 1, 0)
    assert report["findings"][0]["facts"] == {"total": 5}


def test_the_help_names_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--port", "x", "--help"]) == 0
    assert "Exit status" in capsys.readouterr().out


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: popen(["sleep", "60"], **options))
    found = ask("text", None, seconds=0.1)
    assert (found.ended_in, found.end) == ("its start", "did not end")
