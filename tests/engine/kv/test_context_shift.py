"""The context shift against a loop that does nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.request import Request, prompt_tokens
from tests.engine.driver import Driver, request
from tests.fakes import FakeMemory, FakeRunner, FakeSampler

N_CTX = 20


def oracle(asked: Request, *, adds_bos: bool, n_vocab: int) -> list[int]:
    """One sequence in one memory: compute a cell, shift where the next would reach the end, pick a token."""
    params = asked.params
    memory = FakeMemory()
    sampler = FakeSampler(params.sampling, params.sampling.seed)
    tokens = prompt_tokens(asked.prompt)
    n_prompt = len(tokens)
    n_keep = n_prompt if params.n_keep < 0 else min(params.n_keep + adds_bos, n_prompt)
    n_keep = min(n_keep, N_CTX - 4)
    n_past = 0
    value = 0
    for token in tokens:
        value = memory.compute(0, token, n_past)
        n_past += 1
    generated: list[int] = []
    while True:
        generated.append(sampler.choose(value, n_vocab))
        if len(generated) == params.n_predict:
            return generated
        if n_past + 1 >= N_CTX:
            n_left = n_past - n_keep
            n_discard = min(params.n_discard or n_left // 2, n_left)
            memory.seq_rm(0, n_keep, n_keep + n_discard)
            memory.seq_add(0, n_keep + n_discard, n_past, -n_discard)
            n_past -= n_discard
        value = memory.compute(0, generated[-1], n_past)
        n_past += 1


@settings(max_examples=150, deadline=None)
@given(
    n_prompt=st.integers(1, N_CTX - 1),
    first=st.integers(1, 9),
    n_keep=st.integers(-1, N_CTX),
    n_discard=st.integers(0, N_CTX),
    n_predict=st.integers(1, 3 * N_CTX),
    adds_bos=st.booleans(),
)
def test_a_shifted_sequence_goes_on_as_the_plain_loop_does(
    n_prompt: int, first: int, n_keep: int, n_discard: int, n_predict: int, adds_bos: bool
) -> None:
    prompt = tuple(range(first, first + n_prompt))
    asked = request("r", prompt, n_keep=n_keep, n_discard=n_discard, n_predict=n_predict)
    driver = Driver(FakeRunner(adds_bos=adds_bos), n_slots=1, n_ctx=N_CTX)
    driver.submit(asked)
    driver.run()
    got = driver.transcripts["r", 0]
    assert got.tokens == oracle(asked, adds_bos=adds_bos, n_vocab=driver.runner.n_vocab)
    assert got.finished is not None
    assert got.finished.truncated == (len(prompt) + n_predict > N_CTX)
    assert got.finished.n_resident < N_CTX
