"""Recordings in every form that clients send become the samples that the model hears; broken ones are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llamabox.media.decoding.link import MAX_SECONDS
from llamabox.media.reader import MediaReader
from tests.media.files import RED, file, flac_of_length, plain, recording, tone
from tests.media.reading import ALL, refusal, samples

FORMS = {
    "WAV, 8 bits": ("WAV", "PCM_U8", 0.01),
    "WAV, 16 bits": ("WAV", "PCM_16", 1e-4),
    "WAV, 24 bits": ("WAV", "PCM_24", 1e-5),
    "WAV, 32 bits": ("WAV", "PCM_32", 1e-5),
    "WAV, floating point": ("WAV", "FLOAT", 1e-5),
    "WAV, mu-law": ("WAV", "ULAW", 0.02),
    "WAV, ADPCM": ("WAV", "IMA_ADPCM", 0.02),
    "WAV, 64-bit": ("RF64", "PCM_16", 1e-4),
    "FLAC": ("FLAC", "PCM_16", 1e-4),
    "FLAC, 24 bits": ("FLAC", "PCM_24", 1e-5),
    "MP3": ("MP3", None, 0.02),
    "OGG": ("OGG", "VORBIS", 0.03),
    "OGG, Opus": ("OGG", "OPUS", 0.03),
}


def residue(found: NDArray[Any], hertz: float, rate: int) -> tuple[float, float]:
    """Amplitude of a sine of this pitch in the middle of a sound, and the level of everything else."""
    middle = found[len(found) // 8 : -len(found) // 8].astype(np.float64)
    angle = 2 * np.pi * hertz * np.arange(len(middle)) / rate
    waves = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    parts, *_ = np.linalg.lstsq(waves, middle, rcond=None)
    return float(np.hypot(*parts)), float((middle - waves @ parts).std())


@pytest.mark.parametrize("form", FORMS)
def test_every_format_sounds_the_same(reader: MediaReader, form: str) -> None:
    """Two channels at another rate than the model's, longer than the blocks in which a file is read."""
    kind, subtype, noise = FORMS[form]
    rate = 48_000 if subtype == "OPUS" else 44_100
    found = samples(reader, recording(tone(rate, 8, n_channels=2), rate, kind, subtype))
    assert abs(len(found) - 8 * 16_000) <= 1500  # of ADPCM the last block is padded
    amplitude, others = residue(found, 440, 16_000)
    assert abs(amplitude - 0.5) < 0.01
    assert others < noise


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("heard", [16_000, 24_000])
def test_every_rate_becomes_the_model_s(reader: MediaReader, rate: int, heard: int) -> None:
    info = dataclasses.replace(ALL, audio_rate=heard)
    found = samples(reader, recording(tone(rate, 1), rate, subtype="FLOAT"), info)
    assert abs(len(found) - heard) <= 1
    amplitude, others = residue(found, 440, heard)
    assert abs(amplitude - 0.5) < 1e-4
    assert others < 1e-4


def test_what_the_model_cannot_hear_is_not_folded_back(reader: MediaReader) -> None:
    """11 kHz has no place at 16,000 samples a second: without a filter it would sound as 5 kHz."""
    found = samples(reader, recording(tone(48_000, 1, hertz=11_000), 48_000, subtype="FLOAT"))
    assert np.abs(found[800:-800]).max() < 1e-4


def test_channels_are_mixed(reader: MediaReader) -> None:
    left = tone(16_000, 1)
    for n_channels in (2, 6):
        frames = np.concatenate([left, *[np.zeros_like(left)] * (n_channels - 1)], axis=1)
        found = samples(reader, recording(frames, 16_000, subtype="FLOAT"))
        assert np.allclose(found, left[:, 0] / n_channels, atol=1e-6)


def test_samples_are_numbers_within_the_scale(reader: MediaReader) -> None:
    frames = tone(16_000, 1)
    frames[:4, 0] = [np.nan, np.inf, -np.inf, 7.0]
    found = samples(reader, recording(frames, 16_000, subtype="FLOAT"))
    assert found[:4].tolist() == [0.0, 1.0, -1.0, 1.0]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("n_frames", [1, 2, 100])
def test_the_shortest_sounds(reader: MediaReader, n_frames: int) -> None:
    assert len(samples(reader, recording(tone(16_000, 1)[:n_frames], 16_000))) == n_frames
    assert len(samples(reader, recording(tone(48_000, 1)[: 3 * n_frames], 48_000))) >= 1


def test_silence_is_a_sound(reader: MediaReader) -> None:
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        assert not samples(reader, recording(np.zeros((16_000, 1), np.float32), 16_000, kind)).any()


def test_a_file_may_leave_its_length_open(reader: MediaReader) -> None:
    """As ffmpeg does where it writes into a pipe."""
    wave, flac = recording(tone(44_100, 2), 44_100), recording(tone(44_100, 2), 44_100, "FLAC")
    endless = wave[:4] + b"\xff" * 4 + wave[8:40] + b"\xff" * 4 + wave[44:]
    for data in (endless, flac_of_length(flac, 0)):
        assert residue(samples(reader, data), 440, 16_000)[1] < 1e-4


def test_a_tag_before_an_mp3_is_skipped(reader: MediaReader) -> None:
    size = 100_000
    tag = b"ID3\x04\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + bytes(size)
    assert len(samples(reader, tag + recording(tone(16_000, 1), 16_000, "MP3"))) >= 16_000


def test_what_lasts_too_long_is_refused(reader: MediaReader) -> None:
    """By its header, or where that says nothing, by what comes out of it. A day of silence is a small file."""
    silence = recording(np.zeros((16_000 * (MAX_SECONDS + 60), 1), np.float32), 16_000, "FLAC")
    day = flac_of_length(recording(tone(16_000, 1), 16_000, "FLAC"), 24 * 3600 * 16_000)
    for data in (silence, flac_of_length(silence, 0), day):
        assert "must last at most 30 minutes" in refusal(reader, data)
    assert "not 1440" in refusal(reader, day)


def test_half_of_a_file_is_heard_or_refused(reader: MediaReader) -> None:
    for kind in ("WAV", "FLAC", "MP3", "OGG"):
        data = recording(tone(44_100, 4), 44_100, kind)
        for part in (0.01, 0.1, 0.5, 0.99):
            cut = data[: int(len(data) * part)]
            try:
                found = samples(reader, cut)
            except Exception:
                assert refusal(reader, cut)
            else:
                assert 0 < len(found) <= 4 * 16_000 + 1200


BROKEN = {
    "a header alone": recording(tone(16_000, 1), 16_000)[:44],
    "half a header": recording(tone(16_000, 1), 16_000)[:30],
    "no frames": recording(tone(16_000, 1)[:0], 16_000),
    "a rate of 0": recording(tone(16_000, 1), 16_000)[:24] + bytes(4) + recording(tone(16_000, 1), 16_000)[28:],
    "a rate of 4 GHz": recording(tone(16_000, 1), 16_000)[:24] + b"\xff" * 4 + recording(tone(16_000, 1), 16_000)[28:],
    "1,000 channels": recording(np.zeros((10, 1000), np.float32), 16_000),
    "pages that are none": b"OggS" + bytes(1000),
    "a stream of another kind": b"fLaC" + bytes(1000),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_ones_are_refused(reader: MediaReader, what: str) -> None:
    assert refusal(reader, BROKEN[what], "audio")


def test_a_picture_is_no_recording_and_a_recording_no_picture(reader: MediaReader) -> None:
    """Whatever the name or the type of the file says."""
    picture, sound = file(plain("RGB", RED)), recording(tone(16_000, 1), 16_000)
    assert "is a picture (PNG), not a recording (WAV, FLAC, MP3 or OGG)" in refusal(reader, picture, "audio")
    assert "is a recording (WAV), not a picture (PNG, JPEG" in refusal(reader, sound, "image")


def test_formats_that_are_not_read_are_named(reader: MediaReader) -> None:
    for data, what in (
        (b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42isom\0\0\0\0", "is an MP4 or M4A file, not a recording"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture, not"),
        (b"\x1aE\xdf\xa3" + bytes(40), "is a WebM or Matroska file, not"),
        (b"\xff\xf1\x50\x80" + bytes(40), "is an AAC recording, not"),
        (b"<html></html>", "is an SVG or HTML file, not"),
        (b"hello", "is not a recording (WAV, FLAC, MP3 or OGG)"),
        (b"", "is not a recording"),
    ):
        assert what in refusal(reader, data, "audio")
