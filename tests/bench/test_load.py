from __future__ import annotations

from llamabox.bench.load import RequestShape, request, words


def test_prompts_differ_but_for_the_shared_beginning() -> None:
    shape = RequestShape(model="m", n_words=5, n_shared=7)
    prompts = [request(shape, "salt", index)[1]["prompt"].split() for index in range(20)]
    assert all(len(prompt) == 12 for prompt in prompts)
    assert len({tuple(prompt[:7]) for prompt in prompts}) == 1
    assert len({tuple(prompt) for prompt in prompts}) == 20
    assert request(shape, "other", 0)[1]["prompt"].split()[:7] != prompts[0][:7]


def test_the_same_seed_gives_the_same_words() -> None:
    assert words("a", 9) == words("a", 9) != words("b", 9)
    assert words("a", 0) == ""


def test_chat_asks_the_same_of_the_other_route() -> None:
    path, body = request(RequestShape(model="m", chat=True, n_tokens=3), "s", 2)
    assert path == "/v1/chat/completions"
    assert body["messages"][0]["content"] == request(RequestShape(model="m"), "s", 2)[1]["prompt"]
    assert (body["max_tokens"], body["seed"], body["stream"]) == (3, 2, True)
