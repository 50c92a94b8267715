"""llama-server's options that ask for what cannot be had here, and why.

Passing over one with a warning would start another server than the one that was asked for: without `-m`, one with
the demo model.
"""

from __future__ import annotations

from collections.abc import Mapping

LEARNT = "how long a match must be is learnt from how far such matches held: leave it out"
LENGTHS = "a draft is as long as pays, up to --spec-draft-n-max: leave it out"
FETCHED = "models are not fetched by name: download the GGUF file, and name it with {}"
ONE_MODEL = "a server has one model: start one for each, and name its file with -m"

REFUSED: Mapping[str, str] = {
    **{f"--spec-ngram-{kind}-size-n": LEARNT for kind in ("simple", "map-k", "map-k4v")},
    **{f"--spec-ngram-{kind}-min-hits": LEARNT for kind in ("simple", "map-k", "map-k4v")},
    **dict.fromkeys(("--spec-ngram-mod-n-match", "--spec-ngram-size-n", "--spec-ngram-min-hits"), LEARNT),
    "--spec-ngram-mod-n-min": LENGTHS,
    **dict.fromkeys(("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"), FETCHED.format("-md")),
}
"""Those that end the start."""

FETCHING = ("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url", "-dr", "--docker-repo")
ROUTING = ("--models-dir", "--models-preset", "--models-max")

CHOOSING: Mapping[str, str] = {**dict.fromkeys(FETCHING, FETCHED.format("-m")), **dict.fromkeys(ROUTING, ONE_MODEL)}
"""Those that choose the model in another way than `-m`. They end the start without it; beside it, a warning says that
they have no effect.
"""

CHOOSING_VARIABLES: Mapping[str, str] = {
    **{f"LLAMA_ARG_{name}": FETCHED.format("-m") for name in ("HF_REPO", "HF_FILE", "MODEL_URL", "DOCKER_REPO")},
    **{f"LLAMA_ARG_MODELS_{name}": ONE_MODEL for name in ("DIR", "PRESET", "MAX")},
}
"""The same by llama-server's environment variables."""
