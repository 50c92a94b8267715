"""Content blocks of Anthropic's messages as texts and media, in the order in which they stand."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from llamabox.chat.markers import Markers, joined
from llamabox.checks import describe, mapping, one_of, present, string, wrong
from llamabox.media.source import MediaSource

Piece = tuple[str, bool]
"""A text, and whether it is the marker of a medium."""

SHOWN = ("text", "image", "document", "search_result", "tool_reference")
"""Blocks that say something to the model, wherever they stand."""

PLAIN = "text/"
"""Begins the media types of documents whose bytes are their text."""


def objects(value: object, where: str) -> list[tuple[str, dict[str, Any]]]:
    """The blocks of a content with the field of each, without nulls; a string is one block of text."""
    if isinstance(value, str):
        return [(where, {"type": "text", "text": value})]
    if not isinstance(value, list):
        raise wrong(where, f"must be a string or an array of content blocks, not {describe(value)}")
    found = []
    for i, one in enumerate(value):
        block = present(mapping(f"{where}[{i}]", one))
        string(f"{where}[{i}].type", block.get("type"))
        found.append((f"{where}[{i}]", block))
    return found


def pieces_of(value: object, where: str, markers: Markers) -> list[Piece]:
    """The pieces of a content that has blocks of SHOWN alone."""
    return [piece for field, block in objects(value, where) for piece in shown(block, field, markers)]


def texts_of(value: object, where: str) -> list[str]:
    """The texts of a content that has nothing else."""
    return [_text(block, field) for field, block in objects(value, where)]


def shown(block: Mapping[str, Any], where: str, markers: Markers) -> list[Piece]:
    """The pieces of one block of SHOWN. Raises InvalidRequest for any other."""
    match one_of(f"{where}.type", block["type"], SHOWN):
        case "text":
            return [(_text(block, where), False)]
        case "image":
            return [(markers.add(_picture(block, where)), True)]
        case "document":
            return _document(block, where, markers)
        case "search_result":
            return [(_search_result(block, where), False)]
        case _:  # of a search among tools; all of them are told in the prompt
            return [(string(f"{where}.tool_name", block.get("tool_name")), False)]


def _text(block: Mapping[str, Any], where: str) -> str:
    one_of(f"{where}.type", block["type"], ("text",))
    return string(f"{where}.text", block.get("text"))


def _picture(block: Mapping[str, Any], where: str) -> MediaSource:
    source = present(mapping(f"{where}.source", block.get("source")))
    match source.get("type"):
        case "base64":
            name = "data"
        case "url":
            name = "url"
        case "file":
            raise wrong(f"{where}.source", "files are not kept by this server; send the picture as base64 or its url")
        case other:
            raise wrong(f"{where}.source.type", f"must be base64 or url, not {describe(other)}")
    field = f"{where}.source.{name}"
    return MediaSource(kind="image", data=string(field, source.get(name)), field=field)


def _document(block: Mapping[str, Any], where: str, markers: Markers) -> list[Piece]:
    """The document's text between tags, with its title and context before it."""
    opening = "<document>\n"
    for name, tag in (("title", "source"), ("context", "context")):
        if text := string(f"{where}.{name}", block.get(name, "")):
            opening += f"<{tag}>{text}</{tag}>\n"
    content = _document_content(present(mapping(f"{where}.source", block.get("source"))), f"{where}.source", markers)
    opening, closing = f"{opening}<document_content>", "</document_content>\n</document>"
    if any(is_marker for _, is_marker in content):
        return [(opening, False), *content, (closing, False)]
    return [("\n".join([opening, *(text for text, _ in content), closing]), False)]


def _document_content(source: Mapping[str, Any], where: str, markers: Markers) -> list[Piece]:
    match source.get("type"):
        case "text":
            return [(string(f"{where}.data", source.get("data")), False)]
        case "content":
            return pieces_of(source.get("content"), f"{where}.content", markers)
        case "base64":
            return [(_plain(source, where), False)]
        case "url" | "file" as kind:
            raise wrong(where, f"a document of type {kind} is not read by this server; send its text, as type text")
        case other:
            raise wrong(f"{where}.type", f"must be text, content or base64, not {describe(other)}")


def _plain(source: Mapping[str, Any], where: str) -> str:
    media_type = string(f"{where}.media_type", source.get("media_type"))
    if not media_type.startswith(PLAIN):
        raise wrong(
            f"{where}.media_type", f"{describe(media_type)} is not read by this server; send the text, as type text"
        )
    data = string(f"{where}.data", source.get("data"))
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise wrong(f"{where}.data", "must be the base64 of a text in UTF-8") from error


def _search_result(block: Mapping[str, Any], where: str) -> str:
    title = string(f"{where}.title", block.get("title", ""))
    source = string(f"{where}.source", block.get("source", ""))
    text = "\n".join(texts_of(block.get("content"), f"{where}.content"))
    return f"<search_result>\n<source>{source}</source>\n<title>{title}</title>\n{text}\n</search_result>"


def content_of(pieces: list[Piece]) -> str | list[dict[str, str]]:
    """A message's content in the form of chat/messages.py."""
    if len(pieces) == 1:
        return pieces[0][0]
    if any(is_marker for _, is_marker in pieces):
        return joined(pieces)
    return [{"type": "text", "text": text} for text, _ in pieces]
