"""A model file whose chat template is a program against the server: a call fails, in time, and nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamabox.chat.template import N_LONG, N_QUICK
from tests.e2e.server_process import ServerProcess, children
from tests.e2e.survival import resident
from tests.models.gguf_edit import with_strings

HARMLESS = {
    "hidden attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "format with attributes": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "format_map": "{{ '{x.__class__.__base__}'.format_map({'x': 1}) }}",
    "bound format": "{% set f = '{0.__globals__}'.format %}{{ f(strftime_now) }}",
    "attr filter": "{{ strftime_now | attr('__globals__') }}",
    "attr by map": "{{ [strftime_now] | map(attribute='__globals__') | list }}",
    "globals of a function": "{{ strftime_now.__globals__['__builtins__'] }}",
    "globals of cycler": "{{ cycler.__init__.__globals__.os.popen('touch ' ~ messages[0].path).read() }}",
    "globals of joiner": "{{ joiner.__init__.__globals__.os }}",
    "globals of namespace": "{{ namespace.__init__.__globals__.os }}",
    "globals of lipsum": "{{ lipsum.__globals__['os'].popen('touch ' ~ messages[0].path).read() }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}{{ m.__init__.__globals__ }}",
    "the template itself": "{{ self._TemplateReference__context.environment.loader }}",
    "code of a generator": "{{ (messages | map(attribute='role')).gi_frame.f_globals }}",
    "written names": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}",
    "import": "{% import '/etc/passwd' as p %}{{ p }}",
    "include": "{% include ['/etc/passwd', '../../etc/passwd'] ignore missing %}",
    "include that must be": "{% include '/etc/passwd' %}",
    "changed messages": "{{ messages.append({'role': 'user'}) }}",
    "changed dictionary": "{{ messages[0].update(content='x') }}",
    "division by zero": "{{ one // (one - one) }}",
    "undefined": "{{ nothing.at.all }}",
    "huge string": "{{ 'a' * (one * 10**9) }}",
    "huge list": "{{ [0] * (one * 10**9) }}",
    "huge range": "{% for x in range(10**9) %}{{ x }}{% endfor %}",
    "huge width": "{{ '%1000000000d' % one }}{{ '{:>1000000000}'.format(one) }}",
    "huge precision": "{{ '%.1000000000f' % one }}",
    "huge filter": "{{ 'a' | center(one * 10**9) }}{{ 'a' | indent(one * 10**9) }}",
    "huge lorem": "{{ lipsum(n=10**6) }}",
    "doubling": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "replacing": "{{ ('a' * (one * 10**6)).replace('a', 'a' * (one * 10**6)) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "huge JSON": "{{ ([[0] * (one * 10**4)] * (one * 10**5)) | tojson }}",
    "surrogates": "{{ '\\ud800' }}",
    "nothing": "",
}
"""Over in a moment, one way or another. `one` is 1, but not before there are messages, or Jinja would compute the rest
when it compiles. `nothing` is a template too: the prompt is empty, as is one of no text."""

ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "huge power": "{{ (10 * one)**(10**9) }}",
}
"""Each uses up its processor time."""

CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
PROGRAM = (
    "{%- set asked = messages[0].content -%}\n{%- set one = (messages[:1] | length) -%}\n"
    + "".join(
        "{%- if asked == '" + name + "' -%}" + text + "{%- endif -%}\n"
        for name, text in {**HARMLESS, **ENDLESS}.items()
    )
    + CHAT
)
SANE = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 24, "temperature": 0}
INNOCENT = {"prompt": "A short history of bread:", "n_predict": 24, "temperature": 0, "ignore_eos": True, "id_slot": 0}


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its model's own template does what the first message names, or else is ChatML."""
    folder = tmp_path_factory.mktemp("hostile")
    file = with_strings(model, folder / "hostile.gguf", {"tokenizer.chat_template": PROGRAM})
    with ServerProcess(folder / "log", "-m", str(file), "-c", "2048", "-np", "2", "--slots") as server:
        assert "Paris" in server.ok("/v1/chat/completions", SANE)["choices"][0]["message"]["content"]
        yield server
        assert "Paris" in server.ok("/v1/chat/completions", SANE)["choices"][0]["message"]["content"]
    file.unlink()


def ask(server: ServerProcess, name: str, path: Path) -> Any:
    messages = [{"role": "user", "content": name, "path": str(path)}]
    return server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 2})


@pytest.mark.parametrize("name", HARMLESS)
def test_a_trick_gets_nothing(server: ServerProcess, name: str, tmp_path: Path) -> None:
    response = ask(server, name, tmp_path / "touched")
    if response.status_code == 200:
        messages = [{"role": "user", "content": name}]
        prompt = server.ok("/apply-template", {"messages": messages})["prompt"]
        prompt = prompt.replace(name, "")
        for secret in ("root:", "builtins", "<module", "<class", "<function", "subprocess"):
            assert secret not in prompt
    else:
        assert response.status_code in (400, 500), response.text
        assert response.json()["error"]["type"] in (
            "invalid_request_error",
            "server_error",
            "exceed_context_size_error",
        )
    assert not (tmp_path / "touched").exists()


def test_endless_ones_end_while_a_stream_runs_on(server: ServerProcess, tmp_path: Path) -> None:
    alone = [event["content"] for event in server.stream("/completion", INNOCENT)]
    before = resident(server.process.pid)
    answers: list[Any] = []
    asking = [
        threading.Thread(target=lambda name=name: answers.append(ask(server, name, tmp_path)))  # type: ignore[misc]
        for name in [*ENDLESS, "huge string", "huge JSON", "doubling"]
    ]
    for thread in asking:
        thread.start()
    while any(thread.is_alive() for thread in asking):
        assert [event["content"] for event in server.stream("/completion", INNOCENT)] == alone
        assert server.health() == 200
    assert [answer.status_code for answer in answers] == [500] * len(asking), [answer.text for answer in answers]
    assert resident(server.process.pid) < before + (64 << 20)
    assert "Paris" in server.ok("/v1/chat/completions", SANE)["choices"][0]["message"]["content"]
    assert len(children(server.process.pid)) <= 1 + N_QUICK + N_LONG, "a process was left behind"


@pytest.mark.parametrize(
    "text",
    [
        "{% extends '/etc/passwd' %}",
        "{{ 'a' * 10**9 }}",
        "{{ 10**(10**9) }}",
        "{{ x" + ".y" * 100_000 + " }}",
        "\0\x01\ufeff",
    ],
)
def test_a_template_that_is_rotten_from_the_start(tiny_text: Path, tmp_path: Path, text: str) -> None:
    """The server starts all the same: prompts without a template are as good as ever."""
    file = with_strings(tiny_text, tmp_path / "rotten.gguf", {"tokenizer.chat_template": text})
    with ServerProcess(tmp_path / "log", "-m", str(file), "-c", "512", "--no-warmup") as server:
        response = server.post("/v1/chat/completions", SANE)
        if text.isprintable():
            assert response.status_code in (400, 500), response.text
            assert "template" in response.json()["error"]["message"]
        server.ok("/completion", {"prompt": "Hi", "n_predict": 2})
        assert server.health() == 200
    file.unlink()
