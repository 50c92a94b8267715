"""Structural tags, as xgrammar and vLLM have them: text in which some tags begin what has a form, as a grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamabox.chat.formats.grammar.words import ANYTHING, Rules, json_rule, one_of, quoted
from llamabox.checks import boolean, describe, mapping, present, string, whole, wrong

TYPES = (
    *("const_string", "any_text", "json_schema", "regex", "sequence", "or", "tag", "triggered_tags"),
    *("tags_with_separator", "optional", "star", "plus", "repeat"),
)
MAX_DEPTH = 64
MAX_REPEATED = 1000

Format = Mapping[str, Any]

ReadSchema = Callable[[str, Any], Mapping[str, Any]]
"""Makes a schema that can be followed of a field's value."""


def structural_grammar(
    value: Mapping[str, Any], where: str, read_schema: ReadSchema
) -> tuple[str, list[tuple[str, str, str]]]:
    """The grammar in Lark of a `structural_tag`, and the regular expressions that it refers to.

    `value` has a `format`, or `structures` and `triggers`. An expression is (its name there, its field, itself).
    Raises InvalidRequest naming the field.
    """
    if "format" in value:
        found: Format = mapping(f"{where}.format", value["format"])
        where = f"{where}.format"
        writer = _Writer(read_schema)
    else:
        found = _triggered(value, where)
        writer = _Writer(read_schema, _in_older_words)
    start = writer.words(found, where, "", 0)
    return f"start: {start}\n{writer.rules}", writer.expressions


def _triggered(value: Mapping[str, Any], where: str) -> Format:
    """The older words, `structures` and `triggers`, in the newer ones."""
    tags = []
    for i, structure in enumerate(_list(value, "structures", where)):
        one = mapping(f"{where}.structures[{i}]", structure)
        content = {"type": "json_schema", "json_schema": one.get("schema", {})}
        ends = {key: string(f"{where}.structures[{i}].{key}", one.get(key)) for key in ("begin", "end")}
        tags.append({**ends, "content": content})
    return {"type": "triggered_tags", "triggers": value.get("triggers"), "tags": tags}


def _in_older_words(field: str) -> str:
    """A field of what `_triggered` made, as the client wrote it."""
    return field.replace(".tags[", ".structures[").replace("].content.json_schema", "].schema")


class _Writer:
    """Writes formats as words. `end` is the text that stands behind one, which the words have too: text without a form
    ends where that comes. An empty one is the end of all."""

    def __init__(self, read_schema: ReadSchema, name: Callable[[str], str] = lambda field: field) -> None:
        """`name` is the client's own name of a field."""
        self.rules = Rules({})
        self.expressions: list[tuple[str, str, str]] = []
        self._read_schema = read_schema
        self._named = name
        self._n = 0

    def words(self, value: Any, where: str, end: str, depth: int) -> str:
        format_ = present(mapping(where, value))
        if depth > MAX_DEPTH:
            raise wrong(where, "it is nested too deep")
        depth += 1
        match format_.get("type"):
            case "any_text":
                return self._free(self._text(format_, where), end)
            case "triggered_tags":
                return self._triggered_tags(format_, where, end, depth)
            case "sequence":
                return self._sequence(_list(format_, "elements", where), f"{where}.elements", end, depth)
            case "or":
                elements = _list(format_, "elements", where)
                choices = [self.words(one, f"{where}.elements[{i}]", end, depth) for i, one in enumerate(elements)]
                return one_of(choices)
            case "tag":
                begin = string(f"{where}.begin", format_.get("begin"))
                return _joined(_said(begin), self._inside(format_, where, end, depth))
        return _joined(self._closed(format_, where, depth), _said(end))

    def _closed(self, format_: Format, where: str, depth: int) -> str:
        """The words for a format that says itself where it ends."""
        match format_.get("type"):
            case "const_string":
                return _said(string(f"{where}.value", format_.get("value")))
            case "json_schema":
                if format_.get("style", "json") != "json":
                    raise wrong(
                        f"{where}.style", f"must be json, not {describe(format_['style'])}; send `tools` instead"
                    )
                field = self._named(f"{where}.json_schema")
                return json_rule(self._read_schema(field, format_.get("json_schema")), field)
            case "regex":
                name = self._name("regex")
                self.expressions.append((name, f"{where}.pattern", string(f"{where}.pattern", format_.get("pattern"))))
                return f"@{name}"
            case "tags_with_separator":
                return self._separated(format_, where, depth)
            case "optional" | "star" | "plus" as kind:
                content = self._closed_content(format_, where, depth)
                return f"({content}){ {'optional': '?', 'star': '*', 'plus': '+'}[kind] }"
            case "repeat":
                least = whole(dict(format_), "min", 0, MAX_REPEATED, 0)
                most = whole(dict(format_), "max", least, MAX_REPEATED, MAX_REPEATED)
                return f"({self._closed_content(format_, where, depth)}){{{least},{most}}}"
            case other:
                raise wrong(f"{where}.type", f"must be one of {', '.join(TYPES)}, not {describe(other)}")

    def _closed_content(self, format_: Format, where: str, depth: int) -> str:
        content = mapping(f"{where}.content", format_.get("content"))
        if _is_free(content):
            raise wrong(f"{where}.content", "text without a form, which may go on for ever, cannot be repeated")
        return self.words(content, f"{where}.content", "", depth)

    def _inside(self, tag: Format, where: str, behind: str, depth: int) -> str:
        """What follows the beginning of a tag: its content, its end, and the text behind that."""
        content = tag.get("content", {"type": "any_text"})
        given = tag.get("end", "")
        ends = given if isinstance(given, list) else [given]
        if not ends:
            raise wrong(f"{where}.end", "must be a text, or several")
        choices = []
        for one in ends:
            end = string(f"{where}.end", one)
            inside = self.words(content, f"{where}.content", end or behind, depth)
            choices.append(_joined(inside, _said(behind if end else "")))
        return one_of(choices) if len(choices) > 1 else choices[0]

    def _sequence(self, elements: Sequence[Any], where: str, end: str, depth: int) -> str:
        made: list[str] = []
        i = 0
        while i < len(elements):
            element, here = present(mapping(f"{where}[{i}]", elements[i])), f"{where}[{i}]"
            i += 1
            if i == len(elements):
                made.append(self.words(element, here, end, depth))
            elif not _is_free(element):
                made.append(self.words(element, here, "", depth))
            else:  # it ends where the next element begins
                following, there = present(mapping(f"{where}[{i}]", elements[i])), f"{where}[{i}]"
                key = {"const_string": "value", "tag": "begin"}.get(str(following.get("type")), "")
                if not following.get(key):
                    raise wrong(here, "text without a form needs a const_string or a tag behind it, to end there")
                made.append(self.words(element, here, string(f"{there}.{key}", following[key]), depth))
                behind = end if i + 1 == len(elements) else ""
                made.append(self._inside(following, there, behind, depth) if key == "begin" else _said(behind))
                i += 1
        return _joined(*made)

    def _triggered_tags(self, format_: Format, where: str, end: str, depth: int) -> str:
        triggers = [string(f"{where}.triggers", one) for one in _list(format_, "triggers", where)]
        if not all(triggers):
            raise wrong(f"{where}.triggers", "must not be empty")
        text = self._text(format_, where)
        by_trigger: dict[str, list[str]] = {}
        for tag, there in self._tags(format_, where):
            begin = string(f"{there}.begin", tag.get("begin"))
            trigger = max((one for one in triggers if begin.startswith(one)), key=len, default="")
            if not trigger:
                raise wrong(self._named(f"{there}.begin"), "must begin with one of the triggers")
            rest = _joined(_said(begin.removeprefix(trigger)), self._inside(tag, there, "", depth))
            by_trigger.setdefault(trigger, []).append(rest)
        sections = []
        for trigger, choices in by_trigger.items():
            head = self.rules.add(self._name("head"), f"{text} {quoted(trigger)}", "[lazy]")
            sections.append(self.rules.add(self._name("section"), f"{head} {one_of(choices)}"))
        section = one_of(sections)
        must = boolean(f"{where}.at_least_one", format_.get("at_least_one", False))
        if boolean(f"{where}.stop_after_first", format_.get("stop_after_first", False)):
            once = _joined(section, _said(end))
            return once if must else one_of([once, self._free(text, end)])
        return f"{section}{'+' if must else '*'} {self._free(text, end)}"

    def _separated(self, format_: Format, where: str, depth: int) -> str:
        tags = [
            _joined(_said(string(f"{there}.begin", tag.get("begin"))), self._inside(tag, there, "", depth))
            for tag, there in self._tags(format_, where)
        ]
        separator = string(f"{where}.separator", format_.get("separator"))
        tag = self.rules.add(self._name("tag"), one_of(tags))
        made = tag
        if not boolean(f"{where}.stop_after_first", format_.get("stop_after_first", False)):
            made = f"{tag} ({_joined(_said(separator), tag)})*"
        return made if boolean(f"{where}.at_least_one", format_.get("at_least_one", False)) else f"({made})?"

    def _tags(self, format_: Format, where: str) -> list[tuple[Format, str]]:
        tags = _list(format_, "tags", where)
        found: list[tuple[Format, str]] = [
            (present(mapping(f"{where}.tags[{i}]", tag)), f"{where}.tags[{i}]") for i, tag in enumerate(tags)
        ]
        for tag, there in found:
            if not tag.get("end") and _is_free(tag.get("content", {"type": "any_text"})):
                raise wrong(f"{there}.end", "must not be empty: its text would go on for ever")
        return found

    def _text(self, format_: Format, where: str) -> str:
        """The terminal for text, without what it `excludes`."""
        excludes = format_.get("excludes", [])
        if not isinstance(excludes, list):
            raise wrong(f"{where}.excludes", f"must be an array of texts, not {describe(excludes)}")
        words = [string(f"{where}.excludes", one) for one in excludes]
        if not words:
            return self.rules.add("TEXT", ANYTHING)
        inside = " | ".join(map(quoted, words))
        return self.rules.add(self._name("TEXT"), f"{ANYTHING} & ~({ANYTHING} ({inside}) {ANYTHING})")

    def _free(self, text: str, end: str) -> str:
        """Text up to `end`, with it."""
        return self.rules.add(self._name("up_to"), f"{text} {quoted(end)}", "[lazy]") if end else text

    def _name(self, word: str) -> str:
        self._n += 1
        return f"{word}_{self._n}"


def _is_free(format_: Any) -> bool:
    """Whether a format goes on until something else begins."""
    if not isinstance(format_, dict):
        return False
    match format_.get("type"):
        case "any_text" | "triggered_tags":
            return True
        case "sequence" | "or":
            elements = format_.get("elements")
            elements = elements if isinstance(elements, list) else []
            return any(map(_is_free, elements if format_["type"] == "or" else elements[-1:]))
        case "tag":
            return not format_.get("end") and _is_free(format_.get("content", {"type": "any_text"}))
    return False


def _list(format_: Format, key: str, where: str) -> list[Any]:
    found = format_.get(key)
    if not isinstance(found, list) or not found:
        raise wrong(f"{where}.{key}", "must be an array, and not empty")
    return found


def _said(text: str) -> str:
    return quoted(text) if text else ""


def _joined(*words: str) -> str:
    return " ".join(filter(None, words)) or '""'
