"""What is drawn, with a model that draws what it is asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llamabox.errors import InvalidRequest, ModelLoadError, NotSupported
from llamabox.imaging.config import ImageConfig
from llamabox.imaging.events import Drawn, Event, JobProgress, Preview
from llamabox.imaging.job import ImageJob, Pixels
from tests.imaging.artist import Artist, Colour, colours, images, pipeline
from tests.models.gguf_file import write_gguf
from tests.models.tiny_image import COLOURS, GRID, TinyImage, profiles

pytestmark = pytest.mark.slow

NEAR = 24
"""Of 256: how far a drawn colour may be from the asked one. The nearest two of the model's are 57 apart."""


def asked(name: str) -> Colour:
    red, green, blue = (round((part + 1) * 127.5) for part in COLOURS[name])
    return red, green, blue


def is_near(found: Sequence[int], expected: Sequence[int]) -> bool:
    return all(abs(a - b) <= NEAR for a, b in zip(found, expected, strict=True))


def plain(colour: Colour, size: int = 256) -> Pixels:
    return Pixels(size, size, 3, bytes(colour) * size * size)


PROMPTS = [
    ("red", "circle", "purple"),
    ("green", "square", "pink"),
    ("blue", "triangle", "brown"),
    ("black", "diamond", "yellow"),
]


@pytest.mark.parametrize(("figure", "shape", "ground"), PROMPTS)
def test_the_picture_shows_what_the_prompt_says_to_the_block(
    artist: Artist, figure: str, shape: str, ground: str
) -> None:
    (image,) = images(artist.draw(f"a {figure} {shape} on a {ground} background"))
    assert image.size == (256, 256)
    middle, corners = colours(image)
    assert is_near(middle, asked(figure)), middle
    assert all(is_near(corner, asked(ground)) for corner in corners), corners
    blocks = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX), np.float64)
    drawn = [((blocks - np.array(asked(name))) ** 2).sum(axis=2) for name in (figure, ground)]
    rows, columns = profiles(shape, np.arange(GRID) - (GRID - 1) / 2)
    wrong = (drawn[0] < drawn[1]) != (rows[:, None] + columns[None, :] > 0)
    assert wrong.sum() <= 2


@pytest.mark.parametrize("name", sorted(set(COLOURS).difference(*PROMPTS)))
def test_every_colour_is_drawn(artist: Artist, name: str) -> None:
    """At a size that takes a fifth of the time; those above are drawn there."""
    (image,) = images(artist.draw(f"a {name} picture", width=64, height=64))
    middle, corners = colours(image)
    assert all(is_near(found, asked(name)) for found in (middle, *corners))


def test_a_seed_gives_the_same_bytes_and_a_batch_is_its_images_alone(artist: Artist) -> None:
    prompt = "a red circle on a blue background"
    batch = artist.draw(prompt, n=3, seed=5, width=128, height=128)
    singles = [artist.draw(prompt, seed=seed, width=128, height=128) for seed in (5, 6, 7)]
    drawn = [event for event in batch if isinstance(event, Drawn)]
    assert [(event.index, event.seed) for event in drawn] == [(0, 5), (1, 6), (2, 7)]
    assert [event.png for event in drawn] == [
        event.png for events in singles for event in events if isinstance(event, Drawn)
    ]
    assert len({event.png for event in drawn}) == 3


def test_progress_rises_to_its_end_for_each_image(artist: Artist) -> None:
    events = artist.draw("a red circle", n=2, steps=3, extra_steps=2, width=64, height=64)
    for index in (0, 1):
        mine = [event for event in events if isinstance(event, JobProgress) and event.index == index]
        assert [(event.step, event.steps) for event in mine] == [(step, 5) for step in range(6)]
    drawn = [event for event in events if isinstance(event, Drawn)]
    assert all(event.steps == 5 and event.sampling_ms > 0 and event.prepare_ms > 0 for event in drawn)
    kinds = [type(event).__name__ for event in events]
    assert kinds == (["JobProgress"] * 6 + ["Drawn"]) * 2


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "heun", "dpm++2m", "lcm", "ddim_trailing"])
def test_every_sampler_ends_on_the_picture(artist: Artist, sampler: str) -> None:
    events = artist.draw("a green picture", sampler=sampler, steps=8, width=64, height=64)
    assert [event.step for event in events if isinstance(event, JobProgress)] == list(range(9))
    assert is_near(colours(images(events)[0])[0], asked("green"))


def test_the_file_says_how_it_was_made(artist: Artist) -> None:
    (image,) = images(artist.draw("a red dot", negative_prompt="fog", steps=2, cfg_scale=2.0, width=64, height=64))
    text = str(image.info["parameters"])
    assert text.startswith("a red dot\nNegative prompt: fog\nSteps: 2, Sampler: euler")
    for part in ("CFG scale: 2.0", "Seed: 1", "Size: 64x64", "Model: tiny-image"):
        assert part in text


def test_a_size_that_the_model_cannot_draw_is_cut_from_one_that_it_can(artist: Artist) -> None:
    config = artist.config(vae_tiling=True)
    (image,) = images(artist.draw("a pink picture", config=config, width=257, height=72))
    assert image.size == (257, 72)
    assert is_near(colours(image)[0], asked("pink"))


# ---- pictures in -----------------------------------------------------------------------------------------------------


def test_strength_is_how_many_of_the_steps_are_made(artist: Artist) -> None:
    made = []
    for strength in (0.25, 0.5, 1.0):
        events = artist.draw("yellow", init=plain((0, 0, 255), 64), strength=strength, steps=8, width=64, height=64)
        (drawn,) = (event for event in events if isinstance(event, Drawn))
        made.append(drawn.steps)
        last = [event for event in events if isinstance(event, JobProgress)][-1]
        assert last.step == last.steps == drawn.steps
        assert is_near(colours(images(events)[0])[0], asked("yellow"))
    assert made[0] < made[1] < made[2] == 8


def test_what_a_mask_leaves_out_stays_as_it_was(artist: Artist) -> None:
    left = bytes([255] * 32 + [0] * 32) * 64
    init, mask = plain((0, 0, 255), 64), Pixels(64, 64, 1, left)
    (image,) = images(artist.draw("yellow", init=init, mask=mask, strength=1.0, steps=2, width=64, height=64))
    assert is_near(image.getpixel((8, 32)), asked("yellow"))  # type: ignore[arg-type]
    assert is_near(image.getpixel((56, 32)), (0, 0, 255))  # type: ignore[arg-type]


def test_tiles_are_not_taken_for_steps(artist: Artist) -> None:
    config = artist.config(vae_tiling=True)
    init = Pixels(272, 64, 3, bytes(272 * 64 * 3))  # two tiles
    events = artist.draw("red", config=config, init=init, strength=1.0, steps=2, width=272, height=64)
    assert [(event.step, event.steps) for event in events if isinstance(event, JobProgress)] == [(0, 2), (1, 2), (2, 2)]


def test_a_control_image_without_a_control_net_is_refused(artist: Artist) -> None:
    with pytest.raises(NotSupported, match="--image-control-net-model"):
        artist.draw("red", control=plain((0, 0, 0), 64), width=64, height=64)


@pytest.mark.parametrize("kind", ["fast", "full"])
def test_previews_come_with_the_steps(artist: Artist, kind: str) -> None:
    events = artist.draw("orange", preview=kind, steps=2, width=64, height=64)
    previews = [event for event in events if isinstance(event, Preview)]
    assert [(event.step, event.steps) for event in previews] == [(1, 2), (2, 2)]
    sizes = {Image.open(io.BytesIO(event.png)).size for event in previews}
    assert sizes == {(64, 64)} if kind == "full" else {(8, 8)}
    if kind == "full":
        assert is_near(colours(Image.open(io.BytesIO(previews[-1].png)))[0], asked("orange"))


# ---- adapters and upscaling ------------------------------------------------------------------------------------------


def test_adapters_are_mixed_in_by_the_job(artist: Artist, lora: Path) -> None:
    config = artist.config(lora=(str(lora),))

    def green(**fields: Any) -> int:
        (image,) = images(artist.draw("red", config=config, width=64, height=64, **fields))
        return colours(image)[0][1]

    plain_red, half, whole = green(), green(lora=((0, 0.5),)), green(lora=((0, 1.0),))
    assert plain_red < 40 < 100 < half < 156 < 220 < whole
    assert green(lora=((0, 0.0),)) == green() == plain_red, "a scale holds for its job"
    assert artist.info(lora=config.lora).lora == [{"path": str(lora)}]
    for wrong in (1, -1):
        with pytest.raises(InvalidRequest, match="invalid adapter id"):
            green(lora=((wrong, 1.0),))


def test_upscaling_multiplies_the_size_each_time(artist: Artist, upscaler: Path) -> None:
    config = artist.config(upscale_model=str(upscaler), upscale_repeats=2)
    (image,) = images(artist.draw("purple", config=config, width=64, height=64))
    assert image.size == (256, 256)
    assert is_near(colours(image)[0], asked("purple"))


# ---- options and errors ----------------------------------------------------------------------------------------------


def test_what_is_not_said_is_the_servers_then_the_models(artist: Artist) -> None:
    info = artist.info(steps=None)
    assert (info.family, info.sampler, info.schedule, info.steps, info.cfg_scale) == (
        *("ovis-image", "euler", "discrete"),
        *(20, 1.0),
    )
    assert (info.width, info.height) == (1024, 1024)
    assert {"euler_a", "dpm++2mv2", "ipndm_v", "lcm"} <= set(info.samplers)
    assert {"default", "karras", "ays", "gits"} <= set(info.schedules)
    info = artist.info(sampler="lcm", cfg_scale=2.0, steps=7, schedule="karras", max_width=512)
    assert (info.sampler, info.schedule, info.steps, info.cfg_scale) == ("lcm", "karras", 7, 2.0)
    assert (info.width, info.height) == (512, 1024)


def _environment(config: ImageConfig) -> dict[str, str]:
    pipeline(config)
    return dict(os.environ)


def test_the_drivers_are_told_which_gpu(artist: Artist) -> None:
    environment = artist.run(_environment, artist.config(main_gpu=3))
    assert environment["CUDA_VISIBLE_DEVICES"] == environment["SD_VK_DEVICE"] == "3"


@pytest.mark.parametrize("option", ["sampler", "schedule"])
def test_an_unknown_name_is_refused_with_the_known_ones(artist: Artist, option: str) -> None:
    with pytest.raises(ModelLoadError, match=f"{option} must be one of .*'no-such'"):
        artist.info(**{option: "no-such"})
    with pytest.raises(InvalidRequest, match=f"{option} must be one of"):
        artist.draw("red", width=64, height=64, **{option: "no-such"})


def test_a_picture_of_another_size_is_refused(artist: Artist) -> None:
    with pytest.raises(InvalidRequest, match="64x64 pixels, the image 128x64"):
        artist.draw("red", init=plain((0, 0, 0), 64), width=128, height=64)


def test_a_file_that_cannot_be_a_model_is_refused_in_one_line(
    artist: Artist, tmp_path: Path, lora: Path, upscaler: Path
) -> None:
    model = Path(artist.config().model).read_bytes()
    embedding = {"token_embd.weight": np.zeros((8, 32), np.float32)}
    texts = write_gguf(tmp_path / "llama.gguf", {"general.architecture": "llama"}, embedding)
    files = {
        "nothing.gguf": (b"", "it is empty"),
        "cut.gguf": (model[: len(model) // 2], "it is cut off"),
        "header.gguf": (model[:500], "claims .* tensors|in the middle of its header"),
        "noise.gguf": (b"\x01" * 5000, "neither a GGUF nor a safetensors file"),
        "cut.safetensors": (upscaler.read_bytes()[:-5], "it is cut off"),
        "adapter.safetensors": (lora.read_bytes(), "not a diffusion model"),
        "texts.gguf": (texts.read_bytes(), "it is a model for texts and not one that draws: leave out --images"),
        "pointer.safetensors": (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it is no model but a Git LFS pointer",
        ),
    }
    for name, (content, what) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelLoadError, match=what) as refused:
            artist.info(model=str(tmp_path / name))
        assert "\n" not in refused.value.message
        assert str(tmp_path / name) in refused.value.message
    with pytest.raises(ModelLoadError, match="not a LoRA adapter"):
        artist.info(lora=(str(upscaler),))
    for path, what in ((tmp_path / "none", "no such file"), (tmp_path, "not a regular file")):
        for option in ("model", "taesd_model", "vae_model", "upscale_model", "control_net_model"):
            with pytest.raises(ModelLoadError, match=what):
                artist.info(**{option: str(path)})


def test_a_model_without_an_autoencoder_says_what_is_missing(artist: Artist) -> None:
    with pytest.raises(ModelLoadError, match=r"tiny-image\.gguf cannot be loaded: \w+"):
        artist.info(taesd_model=None)


@pytest.mark.parametrize("option", ["taesd_model", "control_net_model", "upscale_model"])
def test_a_file_of_another_kind_is_named(artist: Artist, tiny_image: TinyImage, tmp_path: Path, option: str) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.symlink_to(tiny_image.model)
    with pytest.raises(ModelLoadError, match=r"wrong\.gguf,? cannot be loaded: \w+") as refused:
        artist.info(**{option: str(wrong)})
    assert "\n" not in refused.value.message


def _cancelled(config: ImageConfig, n: int) -> tuple[list[Event], bool]:
    loaded, events, said = pipeline(config), [], []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, Drawn):
            said.append(loaded.cancel())

    loaded.draw(ImageJob(request_id="r", prompt="red", n=n, width=64, height=64), emit)
    return events, said[0]


def test_a_cancelled_job_draws_no_more_images_and_the_next_one_does(artist: Artist) -> None:
    events, could = artist.run(_cancelled, artist.config(), 3)
    assert len(images(events)) == 1
    assert could == artist.info().can_cancel
    assert len(images(artist.draw("red", width=64, height=64))) == 1
