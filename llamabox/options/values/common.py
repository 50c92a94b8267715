"""Option values from their text. Each parser raises ValueError with what would have been right."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from llamabox import libllama
from llamabox.engine.request import (
    HIGHEST_SEED,
    LOWEST_SEED,
    MAX_STOP_LENGTH,
    SAMPLER_LETTERS,
    SAMPLER_NAMES,
    fold_seed,
)
from llamabox.errors import InvalidRequest
from llamabox.machine import processors
from llamabox.schemas.relax import relax

logger = logging.getLogger(__name__)

T = TypeVar("T")

INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4e38
"""The largest number that is finite as C's float."""

MAX_SCALE = 1e6
"""The largest scale of an adapter or control vector: beyond it products leave float32."""

MAX_IMAGE_TOKENS = 1 << 16
"""Of one image: more pixels than libmtmd counts in a 32-bit number come of them."""


def integer(low: int, high: int = INT_MAX) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text.strip(), 10)
        except ValueError:
            raise ValueError("expected a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"expected {low} to {high}" if high != INT_MAX else f"expected {low} or more")
        return value

    return parse


def number(
    low: float = -FLOAT_MAX, high: float = FLOAT_MAX, *, clamp: bool = False, above: float | None = None
) -> Callable[[str], float]:
    """A parser of finite numbers from `low` to `high`, or `above` a bound. `clamp` moves a number into the range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("expected a number") from None
        if not math.isfinite(value) or abs(value) > FLOAT_MAX:
            raise ValueError("expected a finite number")
        if above is not None and value <= above:
            raise ValueError(f"expected more than {above:g}")
        if clamp:
            return min(max(value, low), high)
        if not low <= value <= high:
            raise ValueError(f"expected {low:g} or more" if high == FLOAT_MAX else f"expected {low:g} to {high:g}")
        return value

    return parse


def at_least_zero(text: str) -> int:
    """A whole number; a negative one counts as 0."""
    return max(0, integer(-INT_MAX)(text))


def seconds(text: str) -> float:
    return number(above=0, high=10**9)(text)


def interval(text: str) -> float:
    """Seconds between two deeds; 0, and whatever is less, means never."""
    return float(at_least_zero(text))


def mebibytes(text: str) -> int:
    """Bytes from a count of MiB."""
    return integer(1, 1 << 20)(text) << 20


def mebibytes_or_none(text: str) -> int:
    """The same, with 0 for none at all."""
    return integer(0, 1 << 20)(text) << 20


def seed(text: str) -> int:
    """A seed as in a request's body; -1 draws one for each request."""
    return fold_seed(integer(LOWEST_SEED, HIGHEST_SEED)(text))


def gpu_layers(text: str) -> int:
    if text in ("auto", "all"):
        return -1
    value = integer(-INT_MAX)(text) if text.lstrip("+-").isdigit() else None
    if value is None:
        raise ValueError("expected a whole number, auto or all")
    return max(-1, value)


def tensor_split(text: str) -> tuple[float, ...]:
    """A share for each GPU, separated by `,` or `/`."""
    try:
        return tuple(number(0)(part) for part in text.replace("/", ",").split(","))
    except ValueError as error:
        raise ValueError(f"{error}, as in 3,1 for three quarters on the first GPU") from None


def rope_scale(text: str) -> float:
    """A factor of context as the frequencies' scale, its inverse."""
    return 1 / number(above=0)(text)


def kv_override(text: str) -> tuple[tuple[str, int | float | bool | str], ...]:
    """`KEY=TYPE:VALUE`, of --override-kv."""
    key, has_key, rest = text.partition("=")
    kind, has_kind, value = rest.partition(":")
    if not (key and has_key and has_kind and kind in KV_TYPES):
        raise ValueError(f"expected KEY=TYPE:VALUE with a type of {', '.join(KV_TYPES)}")
    if len(key.encode()) > libllama.MAX_KV_TEXT:
        raise ValueError(f"expected a key of at most {libllama.MAX_KV_TEXT} bytes")
    return ((key, KV_TYPES[kind](value)),)


def _kv_text(text: str) -> str:
    if len(text.encode()) > libllama.MAX_KV_TEXT:
        raise ValueError(f"expected a text of at most {libllama.MAX_KV_TEXT} bytes")
    return text


def _kv_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


KV_TYPES: dict[str, Callable[[str], int | float | bool | str]] = {
    "int": integer(-(2**63), 2**63 - 1),
    "float": number(),
    "bool": _kv_bool,
    "str": _kv_text,
}


def cpu_mask(text: str) -> tuple[int, ...]:
    """Bits of a hexadecimal number as the CPUs they stand for; 0x before it is allowed."""
    digits = text.strip().lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]+", digits):
        raise ValueError("expected a hexadecimal number, as f0 for CPUs 4 to 7")
    bits = int(digits, 16)
    if not 0 < bits < 1 << MAX_CPUS:
        raise ValueError(f"expected at least one CPU and none above {MAX_CPUS - 1}")
    return _usable(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def cpu_range(text: str) -> tuple[int, ...]:
    """`LO-HI` as its CPUs. Without LO it begins with the first CPU, without HI it ends with the last."""
    found = re.fullmatch(r"([0-9]{0,4})-([0-9]{0,4})", text.strip())
    if found is None or not (found[1] or found[2]):
        raise ValueError("expected LO-HI, as 0-3")
    there = sorted(processors.allowed())
    if found[1] and found[2]:
        low, high = int(found[1]), int(found[2])
        if low > high or high >= MAX_CPUS:
            raise ValueError(f"expected LO-HI with LO not above HI, and HI at most {MAX_CPUS - 1}")
        return _usable(range(low, high + 1))
    cpus = tuple(cpu for cpu in there if int(found[1] or 0) <= cpu <= int(found[2] or MAX_CPUS))
    if not cpus or (found[2] and int(found[2]) > there[-1]):
        raise ValueError(f"there are no such CPUs: this process may use {_ranges(there)}")
    return cpus


def _usable(cpus: Iterable[int]) -> tuple[int, ...]:
    """The CPUs, if all are there: ggml would leave a thread where it is without a word."""
    wanted, there = tuple(cpus), processors.allowed()
    missing = [cpu for cpu in wanted if cpu not in there]
    if missing:
        raise ValueError(f"there is no CPU {_ranges(missing)}: this process may use {_ranges(sorted(there))}")
    return wanted


def _ranges(cpus: Sequence[int]) -> str:
    """Ascending CPU numbers as the system writes them: 0-3,8."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


MAX_CPUS = 512
"""GGML_MAX_N_THREADS, the length of ggml's masks."""

BIT = {"0": False, "1": True}

SPLIT_MODES = {mode: mode for mode in ("none", "layer", "row")}
ROPE_SCALINGS = {scaling: scaling for scaling in ("none", "linear", "yarn")}
NUMA = {strategy: strategy for strategy in ("distribute", "isolate", "numactl")}
POOLINGS = {name: name for name in ("none", "mean", "cls", "last", "rank")}
CACHE_TYPES = {name: name for name in libllama.CACHE_TYPES}
QUANTISED = frozenset(CACHE_TYPES) - {"f32", "f16", "bf16"}


def env_flag(text: str) -> bool:
    """A switch in the environment: exactly `1` or `true` is on, anything else is off."""
    return text in ("1", "true")


FLASH_ATTN = {
    "on": "on",
    "off": "off",
    "auto": "auto",
    "1": "on",
    "0": "off",
    "true": "on",
    "false": "off",
    "-1": "auto",
}
SWITCH = {"on": True, "off": False, "auto": False, "1": True, "0": False, "true": True, "false": False}


def env_flash_attn(text: str) -> str:
    return FLASH_ATTN.get(text.strip().lower(), "off")


def word(text: str) -> str:
    if not text:
        raise ValueError("expected a text that is not empty")
    return text


def scaled_file(path: str, scale: str | None = None) -> tuple[tuple[str, float], ...]:
    """A file and its scale, two words; one word may have both, as FILE:SCALE."""
    if scale is None:
        path, _, scale = path.rpartition(":")
        if not path or not _is_scale(scale):
            raise ValueError("expected a file and a scale, two words, as in adapter.gguf 0.5")
    return ((word(path), number(-MAX_SCALE, MAX_SCALE)(scale)),)


def plain_file(path: str) -> tuple[tuple[str, float], ...]:
    """A file at scale 1."""
    return ((word(path), 1.0),)


def layer_range(start: str, end: str | None = None) -> tuple[int, int]:
    """Two layers, the first and the last. 0 or less is the first or the last that there is."""
    if end is None:
        raise ValueError("expected the first and the last layer, two words, as in 10 20")
    first, last = (max(0, integer(-INT_MAX)(text)) for text in (start, end))
    if 0 < last < first:
        raise ValueError("expected a first layer that is not behind the last")
    return first, last


def _is_scale(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def one_of(words: Mapping[str, T]) -> Callable[[str], T]:
    """A parser of fixed words, in any case."""

    def parse(text: str) -> T:
        try:
            return words[text.strip().lower()]
        except KeyError:
            raise ValueError(f"expected {', '.join(words)}") from None

    return parse


def hosts(text: str) -> tuple[str, ...]:
    """Addresses or socket paths, separated by commas."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise ValueError("expected an address")
    return found


def api_prefix(text: str) -> str:
    """A path with a slash before it and none after it; empty for no prefix."""
    prefix = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", prefix):
        raise ValueError("expected a path of letters, digits and . _ ~ - /")
    return "/" + prefix if prefix else ""


def origins(text: str) -> tuple[str, ...]:
    """Origins as browsers spell them, separated by commas; also `localhost`, `null` and `*`."""
    found = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    if not found or not all(
        re.fullmatch(r"\*|localhost|null|[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#@]+", one) for one in found
    ):
        raise ValueError("expected origins as https://page.example:8000, localhost or *")
    return found


def allowed_hosts(text: str) -> tuple[str, ...]:
    """Names or addresses without port, separated by commas; also `*`."""
    found = tuple(part.strip().strip("[]") for part in text.split(",") if part.strip())
    if not found or not all(re.fullmatch(r"\*|[\w.-]+|[0-9a-fA-F:.]+", one) for one in found):
        raise ValueError("expected names without port, as api.example,10.0.0.5, or *")
    return found


def api_keys(text: str) -> frozenset[str]:
    found = frozenset(key.strip() for key in text.split(",") if key.strip())
    if not found:
        raise ValueError("expected a key")
    return found


def samplers(text: str) -> tuple[str, ...]:
    """Names separated by `;`. Raises ValueError for a name that is not known; see `unknown_samplers`."""
    return tuple(SAMPLER_NAMES[name] for name in _split_samplers(text) if name in SAMPLER_NAMES)


def sampling_seq(text: str) -> tuple[str, ...]:
    """One letter a sampler."""
    return tuple(SAMPLER_LETTERS[letter] for letter in text if letter in SAMPLER_LETTERS)


def unknown_samplers(flag: str, text: str) -> list[str]:
    """The names that `samplers` or `sampling_seq` leaves out: worth a warning, no failure."""
    if flag == "--sampling-seq":
        return [letter for letter in text if letter not in SAMPLER_LETTERS]
    return [name for name in _split_samplers(text) if name not in SAMPLER_NAMES]


def _split_samplers(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(";") if name.strip()]


def logit_bias(text: str) -> tuple[tuple[int, float], ...]:
    """`15043+1` or `15043-1`: a token id and the bias of its logit. `15043-inf` bans the token."""
    for sign in "+-":
        token, found, bias = text.partition(sign)
        if found and token.isascii() and token.isdigit():
            is_ban = sign == "-" and bias.lower() == "inf"
            return ((integer(0)(token), -math.inf if is_ban else number()(sign + bias)),)
    raise ValueError("expected TOKEN_ID+BIAS or TOKEN_ID-BIAS, as in 15043-1")


def json_schema(text: str) -> str:
    """An object, as compact JSON, in words that can be followed; what cannot is told in the log."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError("expected a JSON object")
    try:
        relaxed = relax(schema)
    except InvalidRequest as error:
        raise ValueError(error.message) from None
    for note in relaxed.notes:
        logger.warning("JSON schema of the command line: %s; answers may differ in this", note)
    return json.dumps(relaxed.schema, ensure_ascii=False, separators=(",", ":"))


def sequence_breaker(text: str) -> tuple[str, ...]:
    """One breaker as it was typed, which `unescape` is for. `none` is no breaker."""
    if text == "none":
        return ()
    if not text:
        raise ValueError("expected a text, or none")
    return (text,)


def stop_string(text: str) -> tuple[str, ...]:
    """One text, as it was typed."""
    if not 0 < len(text) <= MAX_STOP_LENGTH:
        raise ValueError(f"expected a text of 1 to {MAX_STOP_LENGTH} characters")
    return (text,)
