from __future__ import annotations

from datetime import date

import pytest
from jinja2 import TemplateSyntaxError
from jinja2.exceptions import SecurityError

from llamabox.chat.rendering.environment import Fixed, Refused, compile_template


def render(source: str, **variables: object) -> str:
    return compile_template(source).render(**variables)


def test_block_lines_leave_no_white_space() -> None:
    assert render("{% for x in [1, 2] %}\n    {% if x == 1 %}\na\n    {% endif %}\n{% endfor %}\nb\n") == "a\nb"


def test_loop_controls() -> None:
    loop = "{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}"
    assert render(loop + "{{ x }}{% endfor %}") == "02"


def test_generation_block_is_transparent() -> None:
    assert render("a{% generation %}{{ x }}{% endgeneration %}c", x="b") == "abc"


def test_tojson_is_plain_json() -> None:
    value = {"b": "<é🙂'&>", "a": [1, None]}
    assert render("{{ v | tojson }}", v=value) == '{"b": "<é🙂\'&>", "a": [1, null]}'
    assert render("{{ v | tojson(indent=1) }}", v={"a": 1}) == '{\n "a": 1\n}'


def test_strftime_now_is_today() -> None:
    assert render("{{ strftime_now('%Y-%m-%d') }}") == date.today().isoformat()


def test_raise_exception_carries_its_sentence() -> None:
    with pytest.raises(Refused, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    ["{{ messages.append(1) }}", "{{ raise_exception.__globals__['json'] }}"],
)
def test_python_is_out_of_reach(source: str) -> None:
    with pytest.raises(SecurityError):
        render(source, messages=Fixed())


def test_a_template_may_change_lists_of_its_own() -> None:
    source = (
        "{% set seen = [] %}{% for x in [1, 2] %}{% set _ = seen.append(x) %}{% endfor %}{{ seen.pop() }}{{ seen }}"
    )
    assert render(source) == "2[1]"


def test_tojson_takes_what_filters_give() -> None:
    assert render("{{ [{'a': 1}] | map(attribute='a') | tojson }}") == "[1]"
    with pytest.raises(TypeError, match="not JSON"):
        render("{{ raise_exception | tojson }}")


def test_hidden_attributes_are_undefined() -> None:
    assert render("{{ ''.__class__ }}{{ '{0.__class__}'.format(1) }}{{ self._TemplateReference__context }}") == ""


def test_a_range_has_a_limit() -> None:
    with pytest.raises(OverflowError):
        render("{% for x in range(10 ** 9) %}{% endfor %}")


def test_a_wrong_template_says_where() -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        compile_template("ok\n{% for %}")
    assert caught.value.lineno == 2
