"""A dataclass' declaration is its encoding: fields become a flat row of JSON, and `bytes` travel behind it as payload.

    int, float, str, bool, Any, and lists or dicts of them    as they are
    bytes                          null; the bytes themselves are one more piece of the payload
    an enum                        its value
    list[X], tuple[X, ...]         a list
    tuple[X, Y]                    a list; of many such, one list for all X and one for all Y
    a dataclass                    a row, among whose values those of a nested one stand
    X | None                       null, or as X
    A | B of dataclasses           [the class' name, its row]; numbers and texts beside them are as they are
    a class that is no dataclass   one of its subclasses that are, as A | B
    Annotated[float, "-inf"]       a finite number, or null for -inf, which JSON has no word for
    Annotated[str, "path"]         a path: behind a NUL its bytes, where they are no printable text

What has no encoding raises NoEncoding when the class is first used.

Measured there and back in one run (min, µs), this and the rows written by hand that it replaced, for the messages of
tests/benchmarks/test_codec.py:
32 Deltas 32 and 33; with ten likely tokens each 250 and 220; 32 vectors of 384 floats 24 and 22; a picture of 4 KiB 9
and 14; a Submit 13 and 20, with 4096 biases and 256 stop strings 700 and 770.
"""

from __future__ import annotations

import enum
import math
import os
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

SCALARS = (int, float, str, bool)

Pack = Callable[[Any, list[bytes]], Any]
Unpack = Callable[[Any, Iterator[bytes]], Any]


class NoEncoding(TypeError):
    """A declared type that cannot travel: a bug of ours."""


def as_it_is(value: Any, payload: object) -> Any:
    """JSON carries it."""
    return value


@dataclass(frozen=True, slots=True)
class Encoding:
    """How values of one type travel.

    `pack` makes what JSON has words for, and appends to the payload. `unpack` is its inverse; it raises LookupError,
    TypeError, ValueError or StopIteration for what `pack` does not make. The other two do the same for a sequence.
    """

    pack: Pack = as_it_is
    unpack: Unpack = as_it_is
    pack_all: Pack = as_it_is
    unpack_all: Unpack = as_it_is


PLAIN = Encoding()


@cache
def encoding_of(cls: Any) -> Encoding:
    """The encoding of a dataclass. Raises NoEncoding, which names the class and the field that has none.

    Its functions are written for the class, as dataclasses write an __init__: for a Delta they say

        def pack(value, payload):
            return (value.request_id, …, value.timings.cache_n, …, None if value.probs is None else f3(value.probs, …))

        def unpack(row, payload):
            [r0, …, r10] = row
            return f1(r0, r1, r2, r3, f2(r4, …, r9), None if r10 is None else f4(r10, payload))

    and for many values the same within a loop, which saves a call for each.
    """
    writer = _Writer()
    made = writer.fields_of(cls, "value")
    packed = "".join(f"{one}, " for one in writer.packed)
    names = "".join(f"r{at}, " for at in range(len(writer.packed)))
    functions: dict[str, Any] = {**writer.named, "rows": _rows}
    source = f"""
def pack(value, payload):
    return ({packed})

def pack_all(values, payload):
    return [({packed}) for value in values]

def unpack(row, payload):
    if type(row) is not list:
        raise ValueError(f"{{row!r:.80}} is no row")
    [{names}] = row
    return {made}

def unpack_all(values, payload):
    return [{made} for [{names}] in rows(values)]
"""
    exec(source, functions)
    return Encoding(*(functions[one.name] for one in fields(Encoding)))


def _rows(values: Any) -> Any:
    """`values`, all of which are lists."""
    if not {list}.issuperset(map(type, values)):
        raise ValueError(f"{values!r:.80} are no rows")
    return values


class _Writer:
    """Writes the functions of a class: `packed` are the values of its row, `named` is what they call."""

    def __init__(self) -> None:
        self.packed: list[str] = []
        self.named: dict[str, Any] = {}

    def fields_of(self, cls: type[Any], value: str) -> str:
        """What makes one again of its part of the row. Nested dataclasses have theirs in the midst of it."""
        arguments = []
        for one, hint in _hints(cls):
            try:
                made = self._field(hint, f"{value}.{one.name}")
            except NoEncoding as error:
                raise NoEncoding(f"{cls.__name__}.{one.name}: {error}") from None
            arguments.append(f"{one.name}={made}" if one.kw_only else made)
        return f"{self._name(cls)}({', '.join(arguments)})"

    def _field(self, hint: Any, value: str) -> str:
        if _is_dataclass(hint):
            return self.fields_of(hint, value)
        if hint is bytes:
            self.packed.append(f"payload.append({value})")
            return "next(payload)"
        inner = _if_not_none(hint)
        encoding = _encoding(hint if inner is None else inner)
        back = f"r{len(self.packed)}"
        self.packed.append(self._call(encoding.pack, value, is_optional=inner is not None))
        return self._call(encoding.unpack, back, is_optional=inner is not None)

    def _call(self, function: Callable[..., Any], value: str, *, is_optional: bool) -> str:
        if function is as_it_is:
            return value
        call = f"{self._name(function)}({value}, payload)"
        return f"None if {value} is None else {call}" if is_optional else call

    def _name(self, thing: object) -> str:
        name = f"f{len(self.named)}"
        self.named[name] = thing
        return name


def _if_not_none(hint: Any) -> Any:
    """X of an X | None, else None."""
    if get_origin(hint) not in (types.UnionType, Union) or types.NoneType not in get_args(hint):
        return None
    others = [one for one in get_args(hint) if one is not types.NoneType]
    return others[0] if len(others) == 1 else None


def _hints(cls: type[Any]) -> list[tuple[Field[Any], Any]]:
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise NoEncoding(f"{cls.__name__}: {error}: its fields' types must be imported where it is declared") from error
    return [(one, hints[one.name]) for one in fields(cls)]


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _encoding(hint: Any) -> Encoding:
    """Of a declared type. Raises NoEncoding."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in SCALARS or hint is Any:
        return PLAIN
    if hint is bytes:
        return _each(_pack_bytes, _unpack_bytes)
    if origin is Annotated:
        return _annotated(hint)
    if origin in (types.UnionType, Union):
        return _union(hint, arguments)
    if origin is list:
        item = _encoding(arguments[0])
        return _each(item.pack_all, item.unpack_all)
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _in_tuple(_encoding(arguments[0]))
    if origin is tuple:
        return _columns([_encoding(one) for one in arguments])
    if origin is dict and arguments[0] is str and _encoding(arguments[1]) is PLAIN:
        return PLAIN
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        by_value = {one.value: one for one in hint}
        return _each(lambda value, _: value.value, lambda value, _: by_value[value])
    if _is_dataclass(hint):
        return encoding_of(hint)
    if kinds := _kinds(origin or hint):
        return _tagged(kinds)
    raise NoEncoding(f"{hint} has no encoding")


def _kinds(base: Any) -> list[Any]:
    """The dataclasses that derive from a class."""
    if not isinstance(base, type) or base is object:
        return []
    # A dataclass with slots is made twice, and the first one may still be there.
    derived: list[Any] = base.__subclasses__()
    kinds = {f"{one.__module__}.{one.__qualname__}": one for one in derived}
    return [one for one in kinds.values() if is_dataclass(one)]


def _each(pack: Pack, unpack: Unpack) -> Encoding:
    """Many values travel as one does, one after the other."""

    def pack_all(values: Any, payload: list[bytes]) -> Any:
        return [pack(value, payload) for value in values]

    def unpack_all(values: Any, payload: Iterator[bytes]) -> Any:
        return [unpack(value, payload) for value in _list(values)]

    return Encoding(
        *(pack, unpack),
        as_it_is if pack is as_it_is else pack_all,
        as_it_is if unpack is as_it_is else unpack_all,
    )


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(f"{value!r:.80} is no list")
    return value


def _in_tuple(item: Encoding) -> Encoding:
    """A tuple of any length."""
    unpack_all = item.unpack_all
    return _each(item.pack_all, lambda values, payload: tuple(unpack_all(_list(values), payload)))


def _pack_bytes(value: bytes, payload: list[bytes]) -> None:
    payload.append(value)


def _unpack_bytes(value: None, payload: Iterator[bytes]) -> bytes:
    return next(payload)


def _annotated(hint: Any) -> Encoding:
    match get_args(hint):
        case (plain, "-inf") if plain is float:
            return Encoding(_pack_bound, _unpack_bound, _pack_bounds, _unpack_bounds)
        case (plain, "path") if plain is str:
            return _each(_pack_path, _unpack_path)
    raise NoEncoding(f"{hint} has no encoding")


def _pack_bound(value: float, payload: list[bytes]) -> float | None:
    if math.isfinite(value):
        return value
    assert value == -math.inf, f"{value} was let through: JSON has no word for it"
    return None


def _unpack_bound(value: Any, payload: Iterator[bytes]) -> float:
    return -math.inf if value is None else value


def _pack_bounds(values: Sequence[float], payload: list[bytes]) -> Sequence[float | None]:
    if all(map(math.isfinite, values)):
        return values
    return [_pack_bound(value, payload) for value in values]


def _unpack_bounds(values: Any, payload: Iterator[bytes]) -> list[float]:
    return [-math.inf if value is None else value for value in values] if None in _list(values) else values


def _pack_path(path: str, payload: list[bytes]) -> str:
    return path if path.isprintable() else "\0" + os.fsencode(path).decode("latin-1")


def _unpack_path(text: str, payload: Iterator[bytes]) -> str:
    return os.fsdecode(text[1:].encode("latin-1")) if text.startswith("\0") else text


def _union(hint: Any, members: Sequence[Any]) -> Encoding:
    if (inner := _if_not_none(hint)) is not None:
        return _optional(_encoding(inner))
    kinds = [one for one in members if _is_dataclass(one)]
    if not {*SCALARS, types.NoneType}.issuperset(one for one in members if one not in kinds):
        raise NoEncoding(f"{hint} has no encoding")
    return _tagged(kinds, has_others=len(kinds) < len(members)) if kinds else PLAIN


def _optional(inner: Encoding) -> Encoding:
    if inner is PLAIN:
        return PLAIN
    pack, unpack = inner.pack, inner.unpack
    return _each(
        lambda value, payload: None if value is None else pack(value, payload),
        lambda value, payload: None if value is None else unpack(value, payload),
    )


def _tagged(kinds: Sequence[Any], *, has_others: bool = False) -> Encoding:
    """One of several classes. `has_others`: or what JSON carries as it is, which is never a list."""
    packs = {one: encoding_of(one).pack for one in kinds}
    unpacks = {one.__name__: encoding_of(one).unpack for one in kinds}
    assert len(unpacks) == len(packs), f"two of {kinds} have one name"
    names = {one: one.__name__ for one in kinds}

    def pack(value: Any, payload: list[bytes]) -> Any:
        kind = type(value)
        if kind in packs:
            return names[kind], packs[kind](value, payload)
        if has_others and isinstance(value, (*SCALARS, types.NoneType)):
            return value
        raise TypeError(f"{kind.__name__} is none of {', '.join(unpacks)}")

    def unpack(value: Any, payload: Iterator[bytes]) -> Any:
        if has_others and type(value) is not list:
            return value
        name, row = value
        return unpacks[name](row, payload)

    if has_others:
        return _mixed(pack, unpack)

    def pack_all(values: Any, payload: list[bytes]) -> Any:
        try:
            return [(names[kind := type(value)], packs[kind](value, payload)) for value in values]
        except KeyError as error:
            raise TypeError(f"{error} is none of {', '.join(unpacks)}") from None

    def unpack_all(values: Any, payload: Iterator[bytes]) -> Any:
        return [unpacks[name](row, payload) for name, row in _list(values)]

    return Encoding(pack, unpack, pack_all, unpack_all)


def _mixed(pack: Pack, unpack: Unpack) -> Encoding:
    """Values of which some are dataclasses: where none is, as in a prompt of many token ids, all go as they are."""
    plain = {*SCALARS, types.NoneType}

    def pack_all(values: Any, payload: list[bytes]) -> Any:
        return values if plain.issuperset(map(type, values)) else [pack(value, payload) for value in values]

    def unpack_all(values: Any, payload: Iterator[bytes]) -> Any:
        has_none = list not in map(type, _list(values))
        return values if has_none else [unpack(value, payload) for value in values]

    return Encoding(pack, unpack, pack_all, unpack_all)


def _columns(items: Sequence[Encoding]) -> Encoding:
    """A tuple of fixed length. Many of them travel as one list for each place in it."""

    def pack(value: Any, payload: list[bytes]) -> Any:
        return [item.pack(one, payload) for one, item in zip(value, items, strict=True)]

    def unpack(value: Any, payload: Iterator[bytes]) -> Any:
        return tuple(item.unpack(one, payload) for one, item in zip(_list(value), items, strict=True))

    def pack_all(values: Any, payload: list[bytes]) -> Any:
        columns = zip(*values, strict=True)
        return [item.pack_all(one, payload) for one, item in zip(columns, items, strict=bool(values))]

    def unpack_all(values: Any, payload: Iterator[bytes]) -> Any:
        if not _list(values):
            return []
        columns = [item.unpack_all(_list(one), payload) for one, item in zip(values, items, strict=True)]
        if not columns[0]:
            raise ValueError("columns of nothing")
        return list(zip(*columns, strict=True))

    return Encoding(pack, unpack, pack_all, unpack_all)
