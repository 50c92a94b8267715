"""The command against a small server of the test's own, over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from llamabox.bench.command import main


class Handler(BaseHTTPRequestHandler):
    """Streams three texts; refuses whoever brings no key, and every second completion where it is told to."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, object]]] = []
    fails = False

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        self._answer(200, b'{"data": [{"id": "first"}, {"id": "second"}]}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
        if self.fails and len(self.seen) % 2 == 0:
            self._answer(503, b'{"error": {"message": "all slots are busy"}}')
            return
        events = [{"choices": [{"text": "a"}]}] * 3 + [
            {"choices": [], "usage": {"completion_tokens": 6, "prompt_tokens": 8}}
        ]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    Handler.seen.clear()
    Handler.fails = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_sweep(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    words = ["--clients", "1,3", "--requests", "2", "--api-key", "k", "--json", str(report)]
    assert main(["--url", url + "/prefix/", *words]) == 0
    assert len(Handler.seen) == 1 + 2 + 6
    assert {each["path"] for each in Handler.seen} == {"/prefix/v1/completions"}
    assert {each["key"] for each in Handler.seen} == {"Bearer k"}
    assert {each["model"] for each in Handler.seen} == {"first"}
    assert len({each["prompt"] for each in Handler.seen}) == len(Handler.seen)
    runs = json.loads(report.read_text())["runs"]
    assert [(run["clients"], run["requests"], run["failed"]) for run in runs] == [(1, 2, 0), (3, 6, 0)]
    assert all(run["tok_s"] == pytest.approx(6 * run["req_s"]) for run in runs)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["clients", "1", "3"]


def test_failures_are_counted_and_the_first_is_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    Handler.fails = True
    assert main(["--url", url, "--clients", "1", "--requests", "4", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    [run] = json.loads(out)["runs"]
    assert (run["requests"], run["failed"]) == (4, 2)
    assert "HTTP 503" in err
    assert "all slots are busy" in err


def test_no_server_is_one_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:1 does not answer: ")
    assert main(["--url", "ftp://x"]) == 1
    assert "must be as http://127.0.0.1:8080" in capsys.readouterr().err
    assert main(["--url", url, "--json", "/nowhere/x", "--clients", "1", "--requests", "1"]) == 1
    assert "--json /nowhere/x: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--clients", "0"], ["--clients", "2000"], ["--max-tokens", "x"], ["--what"]])
def test_wrong_words(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
