"""What some options change, as a client of a real server and a reader of its log sees it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.survival import metric, wait_for

Serve = Callable[..., ServerProcess]

IM_END, COMMA = 2, 28

PLAIN = ("--no-cache-prompt", "--cache-prompt")  # the later one wins, and is the default
BIASED = ("-l", f"{COMMA}+100", "-lv", "2")
CROWDED = ("--parallel", "1", "--max-waiting", "2", "--metrics", "-lv", "1")


@pytest.fixture(scope="module")
def model(tiny_text: Path) -> Path:
    """It is all one what it says."""
    return tiny_text


@pytest.fixture(scope="module")
def told(serve: Serve) -> ServerProcess:
    """One server with much to show."""
    return serve(
        *("-n", "4", "-s", "7", "-a", "little", "--keep", "3", "-sp", "--no-cache-prompt", "--log-colors", "on", "-v")
    )


def test_predict_caps_what_is_asked_for(told: ServerProcess) -> None:
    for asked in ({}, {"n_predict": 100}, {"max_tokens": -1}):
        assert told.ok("/completion", {"prompt": "Once", "ignore_eos": True, **asked})["tokens_predicted"] == 4
    assert told.ok("/completion", {"prompt": "Once", "n_predict": 2})["tokens_predicted"] == 2


def test_seed_and_keep_are_every_requests(told: ServerProcess) -> None:
    body = {"prompt": "Once upon", "temperature": 2.0, "top_k": 0, "top_p": 1, "min_p": 0}
    first, second = told.ok("/completion", body), told.ok("/completion", body)
    assert first["content"] == second["content"]
    assert first["generation_settings"]["seed_cur"] == 7
    assert first["generation_settings"]["n_keep"] == 3
    assert told.ok("/completion", {**body, "seed": 8})["content"] != first["content"]


def test_alias_is_the_models_name(told: ServerProcess) -> None:
    assert told.http.get("/v1/models").json()["data"][0]["id"] == "little"
    assert told.ok("/v1/completions", {"prompt": "Once"})["model"] == "little"


def test_special_tokens_are_rendered_where_asked(told: ServerProcess, serve: Serve) -> None:
    body = {"prompt": "Once", "logit_bias": [[IM_END, 100]], "n_predict": 3}
    assert told.ok("/completion", body)["content"] == "<|im_end|>"
    assert serve(*PLAIN).ok("/completion", body)["content"] == ""


def test_no_cache_prompt_computes_anew(told: ServerProcess, serve: Serve) -> None:
    def reused(server: ServerProcess) -> int:
        body = {"prompt": "One, two, three, four, five", "n_predict": 1}
        server.ok("/completion", body)
        n_cached: int = server.ok("/completion", body)["timings"]["cache_n"]
        return n_cached

    assert reused(told) == 0
    assert reused(serve(*PLAIN)) > 0


def test_a_bias_of_the_command_line_is_every_requests(serve: Serve) -> None:
    server = serve(*BIASED)
    assert server.ok("/completion", {"prompt": "Once", "n_predict": 3, "temperature": 0})["content"] == ",,,"
    body = {"prompt": "Once", "n_predict": 3, "temperature": 0, "logit_bias": [[COMMA, False]]}
    assert "," not in server.ok("/completion", body)["content"]


def test_the_log_in_colours_and_with_prompts(told: ServerProcess, serve: Serve) -> None:
    told.ok("/completion", {"prompt": "Nightingale"})
    assert "\x1b[" in told.log
    assert "Nightingale" in told.log
    plain = serve(*PLAIN)
    plain.ok("/completion", {"prompt": "Nightingale", "n_predict": 1})
    assert "\x1b[" not in plain.log
    assert "Nightingale" not in plain.log


@pytest.mark.parametrize(("words", "has_prompts"), [(CROWDED, False), (BIASED, True)], ids=["-lv 1", "-lv 2"])
def test_verbosity(serve: Serve, words: tuple[str, ...], has_prompts: bool) -> None:
    server = serve(*words)
    server.ok("/completion", {"prompt": "Nightingale", "n_predict": 1})
    assert "GET /health" in server.log, "the test waited for it to be ready by asking that"
    assert ("Nightingale" in server.log) == has_prompts


def test_a_key_a_template_and_a_socket_from_files(serve: Serve, tmp_path: Path) -> None:
    keys, template, socket = tmp_path / "keys", tmp_path / "template", tmp_path / "x.sock"
    keys.write_text("first\n\nsecond\n")
    template.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    words = ("--api-key-file", str(keys), "--chat-template-file", str(template), "--host", f"127.0.0.1,{socket}")
    server = serve(*words)
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    assert server.post("/apply-template", body).status_code == 401
    for transport in (None, httpx.HTTPTransport(uds=str(socket))):
        with httpx.Client(base_url=server.url, transport=transport, timeout=60) as http:
            reply = http.post("/apply-template", json=body, headers={"Authorization": "Bearer second"})
            assert reply.json() == {"prompt": "[user]Hi"}


def test_more_texts_than_may_wait(serve: Serve) -> None:
    """A request of many is taken whole while there is room; who comes then is told when to come back."""
    server = serve(*CROWDED)
    asked = {"prompt": "Once upon a time", "n_predict": -1, "ignore_eos": True}
    running = server.stream("/completion", asked)
    next(running)
    with ThreadPoolExecutor(1) as pool:
        three = pool.submit(server.post, "/completion", {**asked, "prompt": ["One"] * 3, "n_predict": 1})
        wait_for(lambda: metric(server, "llamacpp:requests_deferred") == 3, "three wait")
        for path in ("/completion", "/v1/completions"):
            refused = server.post(path, {"prompt": "Two", "n_predict": 1})
            assert refused.status_code == 503
            assert refused.json()["error"]["type"] == "unavailable_error"
            assert "--max-waiting" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) >= 1
        running.close()  # type: ignore[attr-defined]
        assert [one["tokens_predicted"] for one in three.result().json()] == [1, 1, 1]
    assert server.ok("/completion", {"prompt": "Two", "n_predict": 1})["tokens_predicted"] == 1


def test_a_key_joined_to_its_option_is_asked_for_and_shown_nowhere(serve: Serve) -> None:
    server = serve("--api-key=S3CRET-KEY", "-v", "-c", "256")
    body = {"prompt": "Once", "n_predict": 2}
    assert server.http.post("/completion", json=body).status_code == 401
    for headers in ({"Authorization": "Bearer S3CRET-KEY"}, {"X-Api-Key": "S3CRET-KEY"}):
        assert server.http.post("/completion", json=body, headers=headers).status_code == 200
    assert server.http.get("/no-such-route?api_key=S3CRET-KEY").status_code == 401
    assert "S3CRET" not in server.log
