"""What people who run servers meet: proxies, quotas, full disks, closed descriptors, Debian's own Python.

    python -m tests.e2e.operations [WORD]        as root on Debian, llamabox with its test extra installed

A line for each check, those alone whose line has the WORD; the exit status is 1 where one failed. It installs
nginx-light where there is no nginx, and makes control groups of its own and mount namespaces, which it removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.e2e.server_process import ServerProcess, children  # noqa: E402
from tests.models.tiny_image import write_tiny_image  # noqa: E402
from tests.server.listening.h2_client import H2Client  # noqa: E402
from tests.suite.ports import free_port  # noqa: E402

LLAMABOX = [sys.executable, "-m", "llamabox"]
SECRET = "a-key-of-the-team"
CHAT = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16, "temperature": 0}
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}
}}
"""
READ_ONLY = """
set -e
findmnt -rno TARGET,FSTYPE | while read -r target kind; do
  case $kind in proc|sysfs|cgroup*|devpts|devtmpfs|mqueue) continue ;; esac
  mount -o remount,bind,ro "$target" 2>/dev/null || true
done
mount --bind / / && mount -o remount,bind,ro /
! touch /tmp/written 2>/dev/null
exec "$@"
"""
Check = Callable[[Path], None]


# ---- a proxy, refusals, HTTP/2 ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[str]:
    """nginx as Debian has it, before a server. Gives its address."""
    if shutil.which("nginx") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        wait_for(lambda: can_connect(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def refusals_reach_a_proxy(folder: Path) -> None:
    """A refusal before the body is read: a wrong key, no such route, no such method, one that is not served."""
    body = b'{"prompt": "' + b"a" * 100_000 + b'"}'
    cases = [
        ("POST", "/completion", "wrong", 401),
        ("POST", "/nothing", SECRET, 404),
        ("PUT", "/completion", SECRET, 405),
    ]
    with ServerProcess(folder / "log", "--api-key", SECRET) as server, nginx(folder, server.port) as url:
        for method, path, key, status in cases:
            found = []
            for _ in range(12):
                with httpx.Client() as client:  # a connection each
                    reply = client.request(method, url + path, content=body, headers={"Authorization": f"Bearer {key}"})
                    found.append(reply.status_code)
            assert found == [status] * 12, f"{method} {path}: {found} in place of {status}"


def refusals_while_loading_reach_a_proxy(folder: Path) -> None:
    server = ServerProcess(folder / "log", wait=False)
    body = b'{"prompt": "' + b"a" * 100_000 + b'", "n_predict": 1}'
    with server, nginx(folder, server.port) as url:
        wait_for(lambda: can_connect(server.port))
        worker = wait_for(lambda: child_of(server))
        os.kill(worker, signal.SIGSTOP)  # a model that takes its time
        try:
            found = [httpx.post(f"{url}/completion", content=body, timeout=20).status_code for _ in range(12)]
        finally:
            os.kill(worker, signal.SIGCONT)
        assert found == [503] * 12, found


def refusals_reach_clients_that_send_all_first(folder: Path) -> None:
    body = b"a" * (5 << 20)
    with ServerProcess(folder / "log", "--api-key", SECRET) as server:
        for _ in range(6):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("POST", "/completion", body, {"Authorization": "Bearer wrong"})
            assert connection.getresponse().status == 401
            connection.close()
            request = urllib.request.Request(f"{server.url}/completion", body, {"Authorization": "Bearer wrong"})
            assert status_by_urllib(request) == 401


def status_by_urllib(request: urllib.request.Request) -> int:
    try:
        return int(urllib.request.urlopen(request, timeout=30).status)
    except urllib.error.HTTPError as error:
        return error.code


def a_refused_stream_leaves_the_others_alone(folder: Path) -> None:
    """Over HTTP/2: somebody's text goes on while others on the same connection are refused, amid their uploads."""
    with ServerProcess(folder / "log", "--api-key", SECRET, "-np", "2") as server:
        asyncio.run(beside_refusals(server))


async def beside_refusals(server: ServerProcess) -> None:
    class To:
        @staticmethod
        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", server.port)

    async with asyncio.timeout(60), H2Client.to(To) as client:  # type: ignore[arg-type]
        reader = client.ask("POST", "/completion", ("x-api-key", SECRET), end=False)
        client.connection.send_data(
            reader, b'{"prompt": "Once", "n_predict": 100, "ignore_eos": true, "stream": true}', True
        )
        for _ in range(5):
            refused = client.ask("POST", "/completion", ("x-api-key", "wrong"), end=False)
            client.connection.send_data(refused, bytes(1000))
            assert await client.status(refused) == 401
            with contextlib.suppress(Exception):  # that stream may be reset by now
                client.connection.send_data(refused, bytes(1000), end_stream=True)
        assert await client.status(reader) == 200
        assert not client.is_closed


# ---- a read-only root ------------------------------------------------------------------------------------------------


def read_only(folder: Path) -> tuple[str, ...]:
    """Words before a command: it sees every file system read-only."""
    script = folder / "read-only.sh"
    script.write_text(READ_ONLY)
    return ("unshare", "--mount", "--propagation", "private", "bash", str(script))


def uploads_need_no_disk(folder: Path) -> None:
    tiny = write_tiny_image(folder)
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "PNG")
    assert len(picture.getvalue()) > 3_000_000
    files = ("-m", str(tiny.model), "--image-taesd-model", str(tiny.taesd))
    with ServerProcess(folder / "log", "--images", *files, before=read_only(folder)) as server:
        fields = {"prompt": "a red circle on a blue background", "size": "256x256", "sample_steps": "1"}
        upload = {"image": ("noise.png", picture.getvalue(), "image/png")}
        reply = server.http.post("/v1/images/edits", data=fields, files=upload)
        assert reply.status_code == 200, f"{reply.status_code}: {reply.text[:200]}"


def routes_need_no_disk(folder: Path) -> None:
    options = ("--slots", "--metrics", "--embeddings", "-np", "2", "-c", "8192")
    with ServerProcess(folder / "log", *options, before=read_only(folder)) as server:
        asked: list[tuple[str, object]] = [
            ("/v1/chat/completions", CHAT),
            ("/v1/chat/completions", {**CHAT, "max_tokens": 1, "unknown": "a" * (3 << 20)}),
            ("/v1/completions", {"prompt": "Once", "max_tokens": 4}),
            ("/completion", {"prompt": "Once", "n_predict": 4, "stream": True}),
            ("/completion", {"prompt": "Is it?", "n_predict": 4, "grammar": 'root ::= "yes" | "no"'}),
            ("/v1/embeddings", {"input": "a cat"}),
            ("/tokenize", {"content": "a cat"}),
            ("/detokenize", {"tokens": [1, 2]}),
            ("/apply-template", {"messages": CHAT["messages"]}),
        ]
        replies = [(path, server.post(path, body).status_code) for path, body in asked]
        replies += [
            (path, server.http.get(path).status_code)
            for path in ("/health", "/props", "/slots", "/metrics", "/v1/models")
        ]
        assert [reply for reply in replies if reply[1] != 200] == [], replies


# ---- Debian's Python, quotas, keys -----------------------------------------------------------------------------------


def debian_s_python_gets_the_sources(folder: Path) -> None:
    """The first part of the README's first command, with an empty cache: fetch, check, unpack, read the headers."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(folder / "venv")], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "cffi>=1.16"], check=True, stderr=subprocess.DEVNULL)
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [str(python), str(ROOT / "build_native.py"), "--check", "--without-images"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    assert "native/cdef fits the headers" in done.stdout, f"{version}: {done.stderr[-500:]}"


def quotas_are_seen(folder: Path) -> None:
    """Half a processor for a group, and no limit for the group inside it that the process is in."""
    mounted = [Path(f"/sys/fs/cgroup/{name}") for name in ("cpu", "cpu,cpuacct", "")]
    top = next((path for path in mounted if (path / "cgroup.procs").exists()), None)
    assert top is not None, "no control groups are mounted"
    outer = top / f"llamabox-{os.getpid()}"
    inner = outer / "inner"
    code = "from llamabox.machine import processors as p; print(p.n_logical())"
    script = f"echo $$ > {inner}/cgroup.procs && exec {sys.executable} -c '{code}'"
    try:
        outer.mkdir()
        if top.name == "cgroup":
            (top / "cgroup.subtree_control").write_text("+cpu")
            (outer / "cpu.max").write_text("50000 100000")
        else:
            (outer / "cpu.cfs_quota_us").write_text("50000")
        inner.mkdir()
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == "1", f"{done.stdout.strip()} threads for half a processor"
    finally:
        for group in (inner, outer):
            with contextlib.suppress(OSError):
                group.rmdir()


def nested_quotas_are_seen(folder: Path) -> None:
    """Of both versions as a container, a systemd slice and a batch job have them; files that the kernel would show."""
    code = (
        "import sys, pathlib; from llamabox.machine import processors as p;"
        "print(p.cpu_quota(pathlib.Path(sys.argv[1])))"
    )
    for kind, line, unlimited, names in (
        ("cgroup2", "0::/a.slice/b.scope", "max 100000", {"cpu.max": "150000 100000"}),
        (
            "cgroup",
            "4:cpu,cpuacct:/a.slice/b.scope",
            "-1",
            {"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"},
        ),
    ):
        proc, tree = folder / kind / "proc", folder / kind / "tree"
        (tree / "a.slice" / "b.scope").mkdir(parents=True)
        proc.mkdir()
        (proc / "cgroup").write_text(line + "\n")
        (proc / "mountinfo").write_text(f"1 0 0:1 / {tree} rw - {kind} {kind} rw,cpu,cpuacct\n")
        (tree / "a.slice" / "b.scope" / next(iter(names))).write_text(unlimited)
        for name, value in names.items():
            (tree / "a.slice" / name).write_text(value)
        done = subprocess.run(
            [sys.executable, "-c", code, str(proc)], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.stdout.strip() == "1.5", f"{kind}: {done.stdout}{done.stderr[-200:]}"


def a_key_after_an_equals_sign_is_one(folder: Path) -> None:
    with ServerProcess(folder / "log", f"--api-key={SECRET}", "--ctx-size=2048", "--parallel=1") as server:
        assert server.post("/v1/chat/completions", CHAT).status_code == 401
        headers = {"Authorization": f"Bearer {SECRET}"}
        reply = server.http.get("/props", headers=headers)
        assert reply.status_code == 200
        assert reply.json()["default_generation_settings"]["n_ctx"] == 2048, reply.text[:300]
        assert SECRET not in server.log, "the log shows the key"
    done = subprocess.run([*LLAMABOX, f"--api-kye={SECRET}", "-m", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, "a slip in the option's name starts an open server"
    assert SECRET not in done.stdout + done.stderr, "the refusal shows the key"


def a_container_s_health_check_finds_the_server(folder: Path) -> None:
    """`llamabox health` without options, where the server is process 1 and listens on another port with a prefix."""
    options = ("--api-prefix", "/x", "--api-key", SECRET)
    before = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
    with ServerProcess(folder / "log", *options, before=before, wait=False) as server:
        server_process = wait_for(lambda: next(iter(children(server.process.pid)), 0))
        inside = ["nsenter", "--target", str(server_process), "--mount", "--pid", "--root", "--wd", *LLAMABOX, "health"]
        wait_for(lambda: subprocess.run(inside, capture_output=True, check=False).returncode == 0)
        said = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
        assert f"port {server.port} answers 200" in said, said
        os.kill(server_process, signal.SIGTERM)


# ---- where the log goes ----------------------------------------------------------------------------------------------


def a_full_disk_behind_stdout(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        serves(folder, stdout=full)
        for word in ("--help", "--version"):
            done = subprocess.run([*LLAMABOX, word], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            assert "Traceback" not in done.stderr, f"{word}: {done.stderr[-300:]}"


def a_closed_pipe_behind_stdout(folder: Path) -> None:
    for name in ("stdout", "stderr"):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as pipe:
            streams: dict[str, Any] = {name: pipe}
            serves(folder, **streams)


def closed_descriptors(folder: Path) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        serves(folder, before=("sh", "-c", f'exec "$@" {closed}', "sh"))


def serves(folder: Path, before: tuple[str, ...] = (), **streams: Any) -> None:
    """A server whose streams are these becomes well, answers, and stops when told."""
    port = free_port()
    log = folder / "stderr.log"
    with log.open("wb") as out:
        places: dict[str, Any] = {"stdout": out, "stderr": out, **streams}
        process = subprocess.Popen([*before, *LLAMABOX, "--port", str(port)], **places)
        try:
            wait_for(lambda: process.poll() is not None or health(port) == 200)
            assert process.poll() is None, f"ended with {process.returncode}: {log.read_text()[-500:]}"
            reply = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=CHAT, timeout=60)
            assert reply.status_code == 200, reply.text
            process.terminate()
            assert process.wait(30) == 0, process.returncode
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()[-500:]


def a_log_that_nobody_reads(folder: Path) -> None:
    reading, writing = os.pipe()
    port = free_port()
    process = subprocess.Popen([*LLAMABOX, "--port", str(port), "-v"], stdout=writing, stderr=writing)
    os.close(writing)
    try:
        wait_for(lambda: health(port) == 200)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            for _ in range(1500):  # lines of far more than the 64 KiB that a pipe holds
                assert client.get("/v1/models").status_code == 200
            assert client.post("/completion", json={"prompt": "Once", "n_predict": 2}).status_code == 200
            assert client.get("/health").status_code == 200
        process.terminate()
        assert process.wait(30) == 0, process.returncode
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def help_on_an_ascii_terminal(folder: Path) -> None:
    for environment in (
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ):
        done = subprocess.run(
            [*LLAMABOX, "--help"], env={**os.environ, **environment}, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{environment}: {done.stderr[-300:].decode(errors='replace')}"
        assert b"--port" in done.stdout


# ---- the checks ------------------------------------------------------------------------------------------------------

CHECKS: tuple[tuple[str, Check], ...] = (
    ("G1 behind nginx refusals of 100 KB are what they are, 12 of 12", refusals_reach_a_proxy),
    ("G1 behind nginx 503 while loading is a 503, 12 of 12", refusals_while_loading_reach_a_proxy),
    ("G1 urllib and http.client with 5 MB and a wrong key get the 401", refusals_reach_clients_that_send_all_first),
    ("G2 a refused HTTP/2 stream leaves the connection's others alone", a_refused_stream_leaves_the_others_alone),
    ("G3 an upload of 3 MiB on a read-only root", uploads_need_no_disk),
    ("G3 every route on a read-only root", routes_need_no_disk),
    ("G4 Debian's python3 fetches, checks and unpacks the sources", debian_s_python_gets_the_sources),
    ("G6 the CPU quota of a group around the process' own is seen", quotas_are_seen),
    ("G6 quotas of nested groups are seen, version 1 and 2", nested_quotas_are_seen),
    ("G7 --api-key=KEY asks for the key and does not show it", a_key_after_an_equals_sign_is_one),
    ("G11 llamabox health finds the server of its container", a_container_s_health_check_finds_the_server),
    ("G10 a full disk behind stdout", a_full_disk_behind_stdout),
    ("G10 a closed pipe behind stdout or stderr", a_closed_pipe_behind_stdout),
    ("G10 closed descriptors 0, 1, 2", closed_descriptors),
    ("G10 a log pipe that nobody reads", a_log_that_nobody_reads),
    ("G10 --help on an ASCII terminal", help_on_an_ascii_terminal),
)


def wait_for(found: Callable[[], object], seconds: float = 180.0) -> int:
    """Until `found` gives something, which is returned."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)
    return int(value) if isinstance(value, int) else 1


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def health(port: int) -> int:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code
    return 0


def child_of(server: ServerProcess) -> int:
    with contextlib.suppress(AssertionError):
        return server.worker_pid()
    return 0


def main(word: str = "") -> int:
    n_failed = n_passed = 0
    for name, check in CHECKS:
        if word not in name:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(Path(folder))
                said, why = "ok", ""
            except Exception as error:
                said, why = "FAIL", f": {type(error).__name__}: {' '.join(str(error).split())[:400]}"
        n_passed, n_failed = n_passed + (said == "ok"), n_failed + (said == "FAIL")
        print(f"{said:4} {name} ({time.monotonic() - started:.0f} s){why}", flush=True)
    print(f"{n_passed} passed, {n_failed} failed")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
