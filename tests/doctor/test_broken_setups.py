"""Set-ups in which a server does not come up, or is slow: the doctor has the line that helps, and the exit status.

All real, but for processors and control groups, whose files are made.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamabox.artifacts.manifest import MANIFEST, fingerprint
from llamabox.bindings import prefix as prefixes
from llamabox.doctor import command, limits
from llamabox.doctor.system import System
from llamabox.workers.doctor.tiny import model_file
from tests.doctor.made_system import WITHOUT_AVX2, made_system
from tests.e2e.faults.test_read_only_root import before
from tests.suite.ports import free_port


class Report:
    """What `llamabox doctor --json` said."""

    def __init__(self, status: int, out: str) -> None:
        self.said = json.loads(out)
        assert self.said["status"] == status
        self.status = status

    def of(self, area: str, level: str) -> dict[str, Any]:
        """The one finding of an area with this level."""
        [found] = [one for one in self.said["findings"] if (one["area"], one["level"]) == (area, level)]
        assert isinstance(found, dict)
        return found

    def problems(self) -> list[str]:
        return [one["area"] for one in self.said["findings"] if one["level"] == "problem"]


def doctor(
    capsys: pytest.CaptureFixture[str], *words: str, system: System | None = None, environ: dict[str, str] | None = None
) -> Report:
    words = ("--json", "--port", str(free_port()), *words)
    status = command.main(words, os.environ if environ is None else environ, system)
    return Report(status, capsys.readouterr().out)


def run(*words: str, wrapped: tuple[str, ...] = (), **environ: str) -> Report:
    """In a process of its own."""
    line = [*wrapped, sys.executable, "-m", "llamabox", "doctor", "--json", "--port", str(free_port()), *words]
    done = subprocess.run(line, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return Report(done.returncode, done.stdout)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "made.gguf"
    path.write_bytes(model_file())
    return str(path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A prefix to do harm to."""
    return Path(shutil.copytree(prefixes.packaged(), tmp_path / "prefix"))


def rewrite(prefix: Path, **values: object) -> None:
    manifest = json.loads((prefix / MANIFEST).read_bytes())
    (prefix / MANIFEST).write_text(json.dumps({**manifest, **values}))


def test_a_machine_that_is_well(model: str) -> None:
    report = run("-m", model)
    assert (report.status, report.problems()) == (0, [])
    assert report.of("model", "ok")["facts"]["architecture"] == "llama"
    assert "text is right" in report.of("self-test", "ok")["text"]


def test_1_no_driver_for_the_built_backend(copy: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries of CUDA do not load without the driver's own library."""
    (copy / "cuda.c").write_text("int cuInit(unsigned flags) { return (int) flags; }\n")
    cc = ["cc", "-shared", "-fPIC", "-o"]
    subprocess.run([*cc, "libcuda.so.1", "-Wl,-soname,libcuda.so.1", "cuda.c"], cwd=copy, check=True)
    module = json.loads((copy / MANIFEST).read_bytes())["module"]
    (copy / "user.c").write_text("int cuInit(unsigned); int PyInit_none(void) { return cuInit(0); }\n")
    subprocess.run([*cc, module, "user.c", "libcuda.so.1"], cwd=copy, check=True)
    (copy / "libcuda.so.1").unlink()
    files = json.loads((copy / MANIFEST).read_bytes())["files"]
    rewrite(copy, backend="cuda", files={**files, module: fingerprint(copy / module)})
    report = doctor(capsys, "-m", model, "--native", str(copy))
    found = report.of("libraries", "problem")
    assert "they need libcuda.so.1, which is not here" in found["text"]
    assert "NVIDIA's driver" in found["advice"]
    assert "--gpus all" in found["advice"]
    command = [sys.executable, "-m", "llamabox", "--native", str(copy), "--version"]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert "install what libcuda.so.1 belongs to" in said
    assert "build_native" not in said, "another build would need it, too"


def test_1_no_device_for_the_built_backend(
    copy: Path, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    for backend, helps in (("cuda", "NVIDIA's driver"), ("rocm", "AMD's driver"), ("vulkan", "mesa-vulkan-drivers")):
        rewrite(copy, backend=backend)
        system = System(tmp_path / "root")
        found = doctor(capsys, "-m", model, "--native", str(copy), system=system).of("devices", "problem")
        assert f"built for {backend}, the libraries find no device of it: /dev/" in found["text"]
        assert helps in found["advice"]


def test_2_a_wrong_prefix(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor(capsys, "-m", model, "--native", str(tmp_path))
    found = report.of("libraries", "problem")
    assert found["text"] == f"no native libraries in {tmp_path}"
    assert f"python build_native.py --prefix {tmp_path}" in found["advice"]
    assert "--native DIR" in found["advice"]
    assert report.problems() == ["libraries"], "what needs no library was looked at all the same"


@pytest.mark.parametrize("harm", ["changed", "missing", "no JSON"])
def test_2_damaged_files(harm: str, copy: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = MANIFEST if harm == "no JSON" else "libggml-base.so"
    if harm == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(b"{" + (copy / name).read_bytes()[:-1])
    found = doctor(capsys, "-m", model, "--native", str(copy)).of("libraries", "problem")
    assert name in found["text"]
    assert "python build_native.py" in found["advice"]


def test_3_a_tiny_limit_of_memory(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor(capsys, "-m", model, system=made_system(tmp_path / "a", limit_mib=64)).of("memory", "problem")
    assert "a limit allows 64 MiB" in found["text"]
    assert "docker --memory" in found["advice"]


def test_3_a_limit_that_leaves_no_room_for_the_model(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    system = made_system(tmp_path / "a", limit_mib=limits.PROCESSES // limits.MIB)
    found = doctor(capsys, "-m", model, system=system).of("memory", "problem")
    assert "the model takes " in found["text"]
    assert 0 < found["facts"]["weights"] < Path(model).stat().st_size


def test_3_a_limit_that_ends_the_child(model: str) -> None:
    """Of addresses, as `ulimit -v` sets it: for real."""
    report = run("-m", model, wrapped=("sh", "-c", 'ulimit -v 240000; exec "$@"', "sh"))
    assert report.status == 1
    assert "ulimit -v allows 234 MiB of addresses" in report.of("memory", "problem")["text"]


def test_4_one_processor_of_quota(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor(capsys, "-m", model, "-t", "4", system=made_system(tmp_path / "a", cpu_max="100000 100000"))
    quota, threads = [
        one for one in report.said["findings"] if one["area"] == "processor" and one["level"] == "warning"
    ]
    assert "the control group allows 1 of" in quota["text"]
    assert "docker --cpus" in quota["advice"]
    assert "-t asks for 4 threads, of which 1 can run at once" in threads["text"]
    assert report.status == 0, "it works"


def test_5_no_avx2(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor(capsys, "-m", model, system=made_system(tmp_path / "a", flags=WITHOUT_AVX2))
    lacking = report.of("processor", "problem")
    assert "AVX2" in lacking["facts"]["lacking"]
    assert "--portable" in lacking["advice"]
    assert "has no AVX2" in report.of("processor", "warning")["text"]


def test_6_a_port_that_is_taken(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = doctor(capsys, "-m", model, "--port", port).of("address", "problem")
    assert f"cannot listen on 127.0.0.1:{port}" in found["text"]
    assert "choose another with --port" in found["advice"]
    if sys.platform == "linux":
        assert found["facts"]["process"] == os.getpid()


def test_7_a_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor(capsys, "-m", str(tmp_path / "none.gguf")).of("model", "problem")
    assert f"cannot read the model {tmp_path}/none.gguf: No such file" in found["text"]
    assert "name a file that is there" in found["advice"]


def test_7_a_model_that_is_cut_off(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(model, 60_000)
    found = doctor(capsys, "-m", model).of("model", "problem")
    assert "it is cut off" in found["text"]
    assert "fetch or convert it again" in found["advice"]


def test_8_a_read_only_home(model: str) -> None:
    """And nothing else can be written either: no temporary folder, no shared memory."""
    report = run("-m", model, wrapped=before(), XDG_CACHE_HOME="")
    found = report.of("home", "warning")
    assert "cannot be written to" in found["text"]
    assert "XDG_CACHE_HOME" in found["advice"]
    assert "-m" in found["advice"]
    assert (report.status, report.problems()) == (0, []), "a server with a model needs none of it"


def test_8_the_demo_model_cannot_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    environ = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    report = doctor(capsys, environ=environ)
    assert f"{tmp_path}/file is no folder" in report.of("home", "warning")["text"]
    assert "would be fetched" in report.of("model", "ok")["text"]
    assert not (tmp_path / "file").is_dir(), "nothing is made"


def test_a_wrong_option_does_not_keep_the_rest_from_being_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor(capsys, "-ngl", "many")
    assert "-ngl many" in report.of("options", "problem")["text"]
    assert report.of("self-test", "ok")
