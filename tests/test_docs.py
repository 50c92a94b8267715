"""The documents say what is there: routes, fields, metrics, and headings that sources refer to."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from llamabox.engine.request import RANDOM_SEED, SAMPLER_LETTERS, SAMPLER_NAMES, SamplingParams
from llamabox.options import OPTIONS
from llamabox.server.api.images import fields as images
from llamabox.server.api.images.fields import LITERAL, NEGATIVE, QUALITIES, SAMPLER, SCHEDULE, SLG_LAYERS, STEPS, STYLES
from llamabox.server.api.images.uploads import PARTS
from llamabox.server.api.openai.chat import fields as chat
from llamabox.server.api.openai.completions import fields as completions
from llamabox.server.api.openai.responses import fields as responses
from llamabox.server.api.rerank import fields as rerank
from llamabox.server.conversation.template_wishes import EFFORT, VERBOSITY
from llamabox.server.fields.generation import N_PREDICT_NAMES
from llamabox.server.fields.sampling import RULES, Rule
from llamabox.server.fields.unsupported import GENERATION
from llamabox.server.hosted.site import Site
from tests.server.fake_client import FakeTextClient
from tests.server.fake_images import FakeImageClient
from tests.server.harness import image_app, text_app

ROOT = Path(__file__).parents[1]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCE_FOLDERS = ("llamabox", "tests", "native", "tools")
SOURCES = sorted(
    path
    for folder in SOURCE_FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".c", ".h", ".cpp", ".sh") and path != Path(__file__) and "_native" not in path.parts
)

GONE = re.compile(r"\bcontract (?:[A-D]\b|\d)|\bD-\d+|the contract\b|\bthe seed's -|\bthe seed README\b", re.IGNORECASE)
"""How sources once referred to a document that is not part of this repository."""

REFERENCE = re.compile(r"docs/([\w-]+\.md)(?:, ([A-Z][\w ,/()-]*?[\w)]))?(?=[.:;\"')\n]|$)")
"""`docs/api.md, Sampling fields`: up to what ends a sentence."""


def headings(text: str) -> list[str]:
    """Without those in blocks of code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", prose, re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def one_line(text: str) -> str:
    """References may be broken over lines of a comment."""
    return re.sub(r"\s*\n\s*(?:# |\* |// )?", " ", text)


def apps() -> Iterator[Starlette]:
    yield text_app(FakeTextClient())
    yield image_app(FakeImageClient())


def routes() -> set[tuple[str, str]]:
    found = set()
    for app in apps():
        for route in app.routes:
            assert isinstance(route, Route)
            path = re.sub(r":\w+}", "}", route.path)
            found |= {(method, path) for method in route.methods or () if method != "HEAD"}
    return found


@cache
def words(document: str = API) -> frozenset[str]:
    """All that stands in backticks, and the names in it."""
    quoted = re.findall(r"`([^`\n]+)`", document)
    return frozenset(quoted) | {name for text in quoted for name in re.findall(r"[\w.]+", text)}


def fields_of_bodies() -> set[str]:
    """Constants by which the parsers look into a request's body: `body["x"]`, `"x" in body`, `_flag(body, "x")`."""
    found: set[str] = set()
    for path in [*(ROOT / "llamabox" / "server").rglob("*.py"), ROOT / "llamabox" / "chat" / "messages.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Subscript(ast.Name("body"), ast.Constant(str(name))):
                    found.add(name)
                case ast.Compare(ast.Constant(str(name)), [ast.In()], [ast.Name("body")]):
                    found.add(name)
                case ast.Call(ast.Attribute(ast.Name("body"), "get"), [ast.Constant(str(name)), *_]):
                    found.add(name)
                case ast.Call(_, [ast.Name("body"), ast.Constant(str(name)), *_]):
                    found.add(name)
    return found


TABLES = (
    *(GENERATION, completions.REFUSED, chat.REFUSED, responses.REFUSED, rerank.REFUSED, images.REFUSED),
    *(N_PREDICT_NAMES, LITERAL, SAMPLER, SCHEDULE, STEPS, NEGATIVE, SLG_LAYERS, PARTS, QUALITIES, STYLES),
    *(SAMPLER_NAMES, SAMPLER_LETTERS, [rule.field for rule in RULES], [EFFORT, VERBOSITY]),
)
"""Names that requests may use, where the code has them in a table."""


def metrics() -> set[str]:
    found: set[str] = set()
    for app in apps():
        site = app.state.site
        assert isinstance(site, Site)
        found |= set(re.findall(r"^# TYPE (\S+)", site.hosted.metrics.scrape().decode(), re.MULTILINE))
    return found


@pytest.mark.parametrize(("method", "path"), sorted(routes()))
def test_every_route_stands_in_the_table_of_routes(method: str, path: str) -> None:
    table = API.partition("\n## Routes\n")[2].partition("\n### ")[0]
    assert f"`{method} {path}`" in table


def test_the_table_of_routes_has_no_others() -> None:
    table = API.partition("\n## Routes\n")[2].partition("\n### ")[0]
    named = set(re.findall(r"`(GET|POST) (/[^`]*)`", table))
    assert named - routes() == set()


def test_every_field_that_a_parser_looks_for_is_named() -> None:
    looked_for = fields_of_bodies()
    assert {"n_probs", "messages", "query", "size", "input_extra", "chat_template_kwargs"} <= looked_for
    assert looked_for - words() == set()


def test_every_name_in_the_tables_of_fields_is_named() -> None:
    assert {name for table in TABLES for name in table} - words() == set()


def test_every_metric_is_named() -> None:
    found = metrics()
    assert len(found) > 20
    assert found - words() == set()


def test_sources_refer_to_nothing_outside_the_repository() -> None:
    found = {str(path.relative_to(ROOT)): GONE.findall(one_line(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {path: references for path, references in found.items() if references} == {}


def test_references_of_sources_to_documents_name_headings_that_are_there() -> None:
    known = {path.name: headings(path.read_text(encoding="utf-8")) for path in ROOT.glob("docs/*.md")}
    n_found, wrong = 0, []
    for path in SOURCES:
        for document, heading in REFERENCE.findall(one_line(path.read_text(encoding="utf-8"))):
            n_found += bool(heading)
            if document not in known or (heading and heading not in known[document]):
                wrong.append((str(path.relative_to(ROOT)), document, heading))
    assert wrong == []
    assert n_found > 20, "docstrings say `docs/api.md, Heading`"


def rows(heading: str) -> dict[str, list[str]]:
    """The lines of the first table below a heading, by each name in the first column."""
    section = re.split(r"^#", API.partition(f" {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            columns = [column.strip() for column in re.split(r"(?<!\\)\|", line)[1:-1]]
            found |= dict.fromkeys(re.findall(r"`(\w+)`", columns[0]), columns)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.field)
def test_the_defaults_of_sampling_fields_are_those_of_the_code(rule: Rule) -> None:
    default = getattr(SamplingParams(), rule.field)
    shown = rows("Sampling fields")[rule.field][3]
    if isinstance(default, bool):
        assert shown == str(default).lower()
    elif isinstance(default, tuple):
        assert json.loads(shown.strip("`")) == list(default)
    else:
        number = -1 if rule.field == "seed" and default == RANDOM_SEED else default
        assert f"{number:g}" in re.findall(r"-?[\d.]*\d", shown)


def test_options_that_the_document_names_are_there() -> None:
    known = {flag for option in OPTIONS for flag in option.flags}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", API)) | set(re.findall(r"`(-[a-z]{1,3})\b", API))
    assert len(named) > 30
    assert named - known == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        document = path.parent / name if name else path
        assert document.exists(), f"{target}: there is no such file"
        if fragment:
            assert fragment in map(anchor, headings(document.read_text(encoding="utf-8"))), f"{target}: no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_are_there(path: Path) -> None:
    """By any end of their path, as `http/sse.py`. Names with a star or in capitals stand for several."""
    there = ["/" + str(source.relative_to(ROOT)) for folder in SOURCE_FOLDERS for source in (ROOT / folder).rglob("*")]
    there += ["/" + source.name for source in ROOT.iterdir()]
    named = re.findall(r"`((?:[a-z_]\w*/)*[a-z_]\w*\.(?:py|c|h|sh))`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not any(source.endswith("/" + name) for source in there)] == []


def test_headings_of_the_api_are_told_apart_by_their_anchors() -> None:
    found = list(map(anchor, headings(API)))
    assert len(found) == len(set(found))
