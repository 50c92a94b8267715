"""The command: what it prints, and its exit status. Serving itself is tested end to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from llamabox import cli
from llamabox.errors import ModelLoadError, NativeMismatch, NativeMissing, to_wire
from llamabox.imaging.config import ImageConfig
from llamabox.options import OPTIONS
from llamabox.options.table.images import FILES
from llamabox.server.hosted.config import ModelConfig
from llamabox.server.listening.config import ListenConfig
from llamabox.wire.text_config import TextConfig


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> object:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def never_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*anything: object) -> int:
        raise AssertionError("this command must not serve")

    monkeypatch.setattr(cli, "_run", refuse)


def command(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamabox", *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("-h", "--help", "--usage"):
        assert cli.main([word]) == 0
        assert capsys.readouterr().out.startswith("usage: llamabox")


def test_help_whatever_else_is_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_PORT", "x")
    for words in (["--help"], ["--api_key", "x", "-h"], ["--port", "--help"]):
        assert cli.main(words) == 0
        assert capsys.readouterr().out.startswith("usage: llamabox")


def test_a_wrong_value_says_how_to_go_on(never_served: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--port", "0"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: --port 0: expected 1 to 65535\nsee: python -m llamabox --help\n"


def test_a_model_that_cannot_be_read(never_served: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.gguf", "No such file"), (tmp_path, "folder")):
        assert cli.main(["-m", str(path)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(path) in error
        assert reason in error


@pytest.mark.parametrize("flag", ["--lora", "--control-vector"])
def test_an_adapter_that_cannot_be_read(
    never_served: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str
) -> None:
    model = tmp_path / "m.gguf"
    model.touch()
    for path, reason in ((tmp_path / "none.gguf", "No such file"), (tmp_path, "folder")):
        assert cli.main(["-m", str(model), flag, str(path)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{path}: " in error
        assert reason in error


@pytest.mark.parametrize(
    "words", [["-m"], ["-m", "m", "--lora"], ["--images", "-m", "m", "--image-vae-model"]], ids=str
)
def test_a_pipe_is_not_waited_for(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    os.mkfifo(tmp_path / "pipe")
    words = [str(tmp_path / word) if word == "m" else word for word in words]
    run = command(*words, str(tmp_path / "pipe"))
    assert run.returncode == 1
    assert run.stderr.endswith("pipe: it is a pipe or device, a file is needed\n")


@pytest.mark.parametrize("slip", ["--api_key=S3CRET", "--api-keys S3CRET", "--sll-key-file=k", "-api-key S3CRET"])
def test_a_slip_in_what_protects_starts_nothing(slip: str, tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    run = command("-m", str(tmp_path / "m"), *slip.split())
    assert run.returncode == 1
    assert "protects the server" in run.stderr
    assert "S3CRET" not in run.stdout + run.stderr


def test_the_help_of_bench_has_no_key() -> None:
    run = command("bench", "--help", LLAMA_API_KEY="S3CRET")
    assert (run.returncode, "S3CRET" in run.stdout) == (0, False)


def test_with_json_logs_everything_on_stderr_is_json() -> None:
    run = command("--log-json", "--bogus", "-m", "/nowhere.gguf", "--api-key", "SECRET")
    warning, start, error = map(orjson.loads, run.stderr.splitlines())
    assert (run.returncode, run.stdout) == (1, "")
    assert (warning["level"], start["level"], error["level"]) == ("warning", "info", "error")
    assert "--bogus" in warning["message"]
    assert start["message"].startswith("llamabox --log-json")
    assert "/nowhere.gguf" in error["message"]
    assert "SECRET" not in run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_key_file_that_is_a_pipe_is_waited_for_until_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    words = [sys.executable, "-m", "llamabox", "--api-key-file", str(tmp_path / "keys")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writing = os.open(tmp_path / "keys", os.O_WRONLY)  # waits until it is opened to be read
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    os.close(writing)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_with_json_logs_a_wrong_option_is_json_too() -> None:
    run = command("--port", "0", "--log-json")
    assert (run.returncode, run.stdout) == (1, "")
    assert orjson.loads(run.stderr)["message"] == "--port 0: expected 1 to 65535"


def test_a_wrong_chat_template(never_served: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.touch()
    assert cli.main(["-m", str(model), "--chat-template", "llama33"]) == 1
    assert "llama3," in capsys.readouterr().err
    assert cli.main(["-m", str(model), "--chat-template", "{% for m in messages %}{{ m }}"]) == 1
    assert "line 1" in capsys.readouterr().err


def test_the_first_line_is_the_command_without_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = tmp_path / "m.gguf"
    model.touch()
    monkeypatch.setattr(cli, "_run", lambda text, listen, hosted: 7)
    assert cli.main(["-m", str(model), "--api-key", "secret", "--porrt", "1"]) == 7
    shown = capsys.readouterr()
    assert shown.out == f"llamabox -m {model} --api-key '***' --porrt 1\n"
    assert "--port" in shown.err
    assert "secret" not in shown.err


@pytest.mark.parametrize(
    ("error", "status"), [(NativeMissing("x"), 2), (NativeMismatch("x"), 2), (ModelLoadError("x"), 1)]
)
def test_exit_status(
    error: NativeMissing, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = subprocess.CompletedProcess([], 0, stdout=orjson.dumps(to_wire(error)))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert cli.main(["--version"]) == status
    assert capsys.readouterr().err == "error: x\nsee: python -m llamabox doctor\n"


def test_missing_native_libraries(tmp_path: Path) -> None:
    for question in ("--version", "--system-info", "--list-devices"):
        done = command(question, "--native", str(tmp_path))
        assert done.returncode == 2
        error, advice = done.stderr.splitlines()
        assert str(tmp_path) in error
        assert advice == "see: python -m llamabox doctor"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command("-m", str(model), "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert done.stderr.endswith("\nsee: python -m llamabox doctor\n")


def test_an_error_while_serving_is_no_wrong_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.touch()

    def break_down(*anything: object) -> int:
        raise OSError("the disk is full")

    monkeypatch.setattr("llamabox.server.start.run", break_down)
    with pytest.raises(OSError, match="disk"):
        cli.main(["-m", str(model)])


@pytest.mark.parametrize("own", [True, False])
def test_the_demo_model_is_served_with_chatml_unless_told_otherwise(
    own: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[ModelConfig] = []

    def serve(text: TextConfig, listen: ListenConfig, hosted: ModelConfig) -> int:
        served.append(hosted)
        return 0

    model = tmp_path / "m.gguf"
    model.touch()
    monkeypatch.setattr(cli, "_run", serve)
    monkeypatch.setattr(cli, "ensure_demo_model", lambda **_: model)
    if own:
        cli.main(["-m", str(model)])
        assert served[0].chat_template is None
    else:
        cli.main([])
        cli.main(["--chat-template", "zephyr"])
        assert [hosted.chat_template for hosted in served] == ["chatml", "zephyr"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_serving_is_an_orderly_end(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, never_served: None
) -> None:
    monkeypatch.setattr(cli, "ensure_demo_model", lambda **_: signal.raise_signal(number))
    assert cli.main([]) == 0


def test_importing_the_command_loads_no_native_code_and_no_web_framework() -> None:
    names = ("starlette", "hypercorn", "numpy", "_cffi_backend", "jinja2", "llamabox.bindings")
    code = f"import sys, llamabox.cli; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_with_images_every_file_is_looked_for_and_an_image_worker_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[ImageConfig] = []

    def serve(images: ImageConfig, listen: ListenConfig, hosted: ModelConfig) -> int:
        served.append(images)
        return 0

    monkeypatch.setattr(cli, "_run_images", serve)
    model = tmp_path / "m.gguf"
    model.touch()
    assert cli.main(["--images", "-m", str(model), "--image-max-batch", "2"]) == 0
    assert (served[0].model, served[0].max_batch) == (str(model), 2)
    for flag in (option.flags[0] for option in OPTIONS if option.dest.removeprefix("image.") in FILES):
        assert cli.main(["--images", "-m", str(model), flag, str(tmp_path / "none")]) == 1
        assert "none: No such file" in capsys.readouterr().err
    assert cli.main(["--images"]) == 1
    assert len(served) == 1


def test_health_is_asked_by_the_options_of_a_server() -> None:
    done = command("health", "--host", "127.0.0.9", "--port", "1")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "error: nobody answers at 127.0.0.9 port 1: Connection refused\n"
