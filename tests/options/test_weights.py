"""Where weights are kept: what of options and environment comes together, and what is refused."""

from __future__ import annotations

import pytest

from llamabox.options.commandline import compose, parse
from llamabox.options.values.weights import EXPERTS
from tests.options.test_commandline import refused


def test_what_is_said_of_single_tensors_goes_first() -> None:
    """An environment variable of one of these options holds beside the others."""
    words = ("-ncmoe", "1", "-ot", "a=RPC0[127.0.0.1:50052],b=CPU", "-ot", "c=CPU")
    text = compose(parse(words, {"LLAMA_ARG_N_CPU_FFN": "1", "LLAMA_ARG_OVERRIDE_TENSOR": "d=CPU"}))[0]
    assert [pattern for pattern, _ in text.tensor_buffers] == [
        *("a", "b", "c", rf"blk\.0{EXPERTS}"),
        r"blk\.0\.ffn_(up|down|gate)\.",
    ]
    assert text.tensor_buffers[0] == ("a", "RPC0[127.0.0.1:50052]")
    assert text.tensor_buffers_draft == ()
    text = compose(parse(("-cmoe", "-ncmoe", "7"), {}))[0]
    assert text.tensor_buffers == ((EXPERTS, "CPU"),)
    assert compose(parse(("-ot", "a=CPU", "-ncmoe", "0"), {}))[0].tensor_buffers == (("a", "CPU"),)


@pytest.mark.parametrize("value", ["a", "=CPU", "a=", "a=CPU,", "(=CPU"])
def test_a_pattern_and_a_type(value: str) -> None:
    message = refused("-ot", value)
    assert "PATTERN=TYPE" in message or "regular expression" in message
