"""What the bench of record counts, and how it shows it. It is run by hand: what it measures takes an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.record.__main__ import columns_of, parser
from tests.benchmarks.record.loads import LOADS
from tests.benchmarks.record.machine import Machine, measure
from tests.benchmarks.record.servers import Command
from tests.benchmarks.record.subjects import Subject, subject
from tests.benchmarks.record.table import cell, compare
from tests.models.shaped.llama import Shape, write_shaped

N_VOCAB = 49_152
SMALL = Shape(n_layer=2, n_embd=256, n_ff=512, n_head=4, n_head_kv=2)
MACHINE = Machine("a processor", "AVX2", 2, read_alone=20e9, read=40e9, products=1e12)


@pytest.fixture(scope="module")
def demo() -> Path:
    return subject("demo", Path()).path


def test_a_step_reads_each_matrix_once(demo: Path, tmp_path: Path) -> None:
    one = subject(str(write_shaped(tmp_path / "small.gguf", demo, SMALL, "f16")), tmp_path)
    layer = 256 * 256 * 2 + 2 * 128 * 256 + 3 * 512 * 256
    assert one.n_vocab == N_VOCAB
    assert one.n_products == 2 * layer
    assert one.n_read(1) == one.n_read(8) == 2 * (2 * layer + N_VOCAB * 256)  # not the table of tokens


def test_a_step_reads_the_experts_that_its_texts_visit(demo: Path, tmp_path: Path) -> None:
    shape = Shape(n_layer=1, n_embd=256, n_ff=512, n_head=4, n_head_kv=2, n_experts=8, n_used=2)
    one = subject(str(write_shaped(tmp_path / "experts.gguf", demo, shape, "f16")), tmp_path)
    experts = 8 * 3 * 512 * 256 * 2
    usual = one.n_read(1) - experts / 4
    assert one.n_read(2) == pytest.approx(usual + experts * (1 - 0.75**2))
    assert one.n_read(1000) == pytest.approx(usual + experts)


def test_the_output_of_a_model_that_ties_it_to_its_tokens_counts(demo: Path) -> None:
    one = subject("demo", Path())
    table = one.header.tensors["token_embd.weight"].n_bytes
    assert one.n_read(1) == pytest.approx(one.path.stat().st_size, rel=0.05)
    assert one.n_read(1) > table


def test_a_cell_has_medians_of_the_rounds_and_of_their_ratios(demo: Path) -> None:
    one = subject("demo", Path())
    columns = columns_of(["decode1", "start"], [one])
    rounds = {"decode1.tok_s": [(10.0, 30.0), (20.0, 22.0), (12.0, 24.0)], "decode1.steps_s": [(100.0, 200.0)]}
    assert compare(rounds["decode1.tok_s"]).ratio == 2.0
    share = 100 * one.n_read(1) / MACHINE.read * 100
    assert cell("decode1.tok_s", columns["decode1.tok_s"], rounds, one, MACHINE) == (
        f"12.0 → 24.0, **2.00** (1.10–3.00), {share:.0f} → {2 * share:.0f} %"
    )
    assert cell("start.memory", columns["start.memory"], rounds, one, MACHINE) == ""


def test_columns_are_those_that_a_model_of_the_table_has(demo: Path) -> None:
    one = subject("demo", Path())
    every = columns_of([*LOADS, "start"], [one])
    assert {name.partition(".")[0] for name in every} == {*LOADS, "start"} - {"embed_short", "embed_long"}


@pytest.mark.parametrize("name", ["1b-q9", "5b-q4_k", "minilm-q4_k", "demo2"])
def test_a_model_that_is_none_is_refused_with_the_names_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no model {name}: name demo, minilm-f32"):
        subject(name, tmp_path)


def test_a_load_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--a", "x", "--b", "y", "--loads", "decode1,decode3"])
    assert "there is no load decode3: there are decode1," in capsys.readouterr().err


def test_a_server_that_ends_is_told_of_with_its_log(demo: Path, tmp_path: Path) -> None:
    command = Command("sh -c 'echo no such model {model} >&2; exit 3'", 2)
    with pytest.raises(RuntimeError, match="sh is not ready:\nno such model"):
        command.start(subject("demo", Path()), 1, 256, tmp_path)


def test_the_machine_is_measured_where_its_vectors_are_known(tmp_path: Path) -> None:
    try:
        found = measure(1, tmp_path)
    except RuntimeError as error:
        assert "x86-64 from AVX2 on" in str(error)  # noqa: PT017
        return
    assert found.read > 1e8
    assert found.products > found.read


def test_a_model_of_the_table_is_a_subject(demo: Path) -> None:
    one = subject("demo", Path())
    assert isinstance(one, Subject)
    assert not one.is_encoder
