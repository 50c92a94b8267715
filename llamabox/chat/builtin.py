"""The chat templates that go by a name, as Jinja text.

Each gives the prompt that `llama_chat_apply_template` gives for the same name in the pinned llama.cpp
(src/llama-chat.cpp).
BOS is not in them: the tokenizer adds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

Turn = tuple[str, str]
"""The texts before and after a message's content. `{role}` is the message's role."""


def template(name: str) -> str:
    """The Jinja source of a built-in template. Raises KeyError for a name that is not in NAMES."""
    return _TEMPLATES[name]()


def _turns(
    *,
    system: Turn | None = None,
    user: Turn | None = None,
    assistant: Turn | None = None,
    tool: Turn | None = None,
    other: Turn | None = None,
    start: str = "",
    answer: str = "",
    trim: str = "",
) -> str:
    """A template that is a fixed frame around each message.

    `other` frames the roles that are not named; without it they are left out. `start` comes first, `answer` opens the
    assistant's turn. `trim` names the roles (comma list) whose content is stripped, or is "all".
    """
    named = {"system": system, "user": user, "assistant": assistant, "tool": tool}
    branches = [(role, turn) for role, turn in named.items() if turn is not None]
    source = _print(start)
    source += "{% for m in messages %}"
    for i, (role, turn) in enumerate(branches):
        source += f"{{% {'elif' if i else 'if'} m.role == {_quote(role)} %}}"
        source += _framed(turn, trim == "all" or role in trim.split(","))
    if other is not None:
        source += ("{% else %}" if branches else "") + _framed(other, trim == "all")
    source += "{% endif %}" if branches else ""
    source += "{% endfor %}"
    return source + _opening(answer)


def _framed(turn: Turn, trim: bool) -> str:
    return _print(turn[0]) + ("{{ m.content | trim }}" if trim else "{{ m.content }}") + _print(turn[1])


def _opening(answer: str) -> str:
    return "{% if add_generation_prompt %}" + _print(answer) + "{% endif %}" if answer else ""


def _print(text: str) -> str:
    """Jinja that prints `text`, with `{role}` replaced by the message's role."""
    pieces = [_quote(piece) for piece in text.split("{role}")]
    return "{{ " + " ~ m.role ~ ".join(pieces) + " }}" if text else ""


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _mistral(lead: str, trail: str, trim: bool) -> str:
    """v1 to v3: a system message opens the turn of the user message after it."""
    return (
        "{% set ns = namespace(inside=false) %}{% for m in messages %}"
        "{% if not ns.inside %}" + _print(f"{lead}[INST]{trail}") + "{% set ns.inside = true %}{% endif %}"
        "{% if m.role == 'system' %}{{ m.content }}" + _print("\n\n") + "{% elif m.role == 'user' %}{{ m.content }}"
        + _print(f"{lead}[/INST]") + "{% else %}" + _print(trail)
        + ("{{ m.content | trim }}" if trim else "{{ m.content }}")
        + _print("</s>") + "{% set ns.inside = false %}{% endif %}{% endfor %}"
    )  # fmt: skip


def _llama2(system: Turn, again: str, trim: bool) -> str:
    """`again` opens every turn but the first."""
    content = "{{ m.content | trim }}" if trim else "{{ m.content }}"
    return (
        _print("[INST] ") + "{% set ns = namespace(inside=true) %}{% for m in messages %}"
        "{% if not ns.inside %}" + _print(again) + "{% set ns.inside = true %}{% endif %}"
        "{% if m.role == 'system' %}" + _print(system[0]) + content + _print(system[1])
        + "{% elif m.role == 'user' %}" + content + _print(" [/INST]")
        + "{% else %}" + content + _print("</s>") + "{% set ns.inside = false %}{% endif %}{% endfor %}"
    )  # fmt: skip


def _without_system(user: Turn, assistant: Turn, other: Turn, join: str, trim: bool, answer: str) -> str:
    """The system text waits for the next message that is not the assistant's and goes before it."""
    content = "{{ m.content | trim }}" if trim else "{{ m.content }}"
    stored = "m.content | trim" if trim else "m.content"
    pending = "{% if ns.system %}{{ ns.system }}" + _print(join) + "{% set ns.system = '' %}{% endif %}"
    return (
        "{% set ns = namespace(system='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.system = ns.system ~ (" + stored + ") %}"
        "{% elif m.role == 'assistant' %}" + _print(assistant[0]) + content + _print(assistant[1])
        + "{% elif m.role == 'user' %}" + _print(user[0]) + pending + content + _print(user[1])
        + "{% else %}" + _print(other[0]) + (pending if other[0] else "") + content + _print(other[1])
        + "{% endif %}{% endfor %}" + _opening(answer)
    )  # fmt: skip


def _monarch() -> str:
    return (
        "{% for m in messages %}{% if not loop.first %}" + _print("<s>") + "{% endif %}"
        + _framed(("{role}\n", "</s>\n"), trim=False) + "{% endfor %}" + _opening("<s>assistant\n")
    )  # fmt: skip


def _openchat() -> str:
    return (
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% else %}"
        "{{ 'GPT4 Correct ' ~ (m.role[:1] | upper) ~ m.role[1:] ~ ': ' ~ m.content }}{% endif %}"
        + _print("<|end_of_turn|>") + "{% endfor %}" + _opening("GPT4 Correct Assistant:")
    )  # fmt: skip


def _rwkv_world() -> str:
    """The answer is opened by a last user message, whether or not it is asked for."""
    return (
        "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
        "{{ m.role | capitalize ~ ': ' ~ (m.content | trim) }}" + _print("\n\n")
        + "{% if loop.last and m.role == 'user' %}" + _print("Assistant:") + "{% endif %}{% endif %}{% endfor %}"
    )  # fmt: skip


def _granite(tool_call: Turn) -> str:
    return (
        "{% for m in messages %}{% if m.role == 'assistant_tool_call' %}" + _framed(tool_call, trim=False)
        + "{% else %}" + _framed(("<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>\n"), trim=False)
        + "{% endif %}{% endfor %}" + _opening("<|start_of_role|>assistant<|end_of_role|>")
    )  # fmt: skip


def _gigachat() -> str:
    functions = "available functions<|role_sep|>[]<|message_sep|>"
    return (
        _print("<s>") + "{% for m in messages %}{% if m.role == 'system' and loop.first %}"
        + _framed(("", "<|message_sep|>"), trim=False) + "{% elif m.role == 'user' %}"
        + _framed(("user<|role_sep|>", "<|message_sep|>" + functions), trim=False) + "{% elif m.role == 'assistant' %}"
        + _framed(("assistant<|role_sep|>", "<|message_sep|>"), trim=False)
        + "{% endif %}{% endfor %}" + _opening("assistant<|role_sep|>")
    )  # fmt: skip


def _bailing(start: str, end: str, answer: str) -> str:
    return (
        start + "{% for m in messages %}" + _print("<role>") + "{{ 'HUMAN' if m.role == 'user' else (m.role | upper) }}"
        + _framed(("</role>", end), trim=False) + "{% endfor %}" + _opening(answer)
    )  # fmt: skip


def _hunyuan_dense() -> str:
    return (
        "{% for m in messages %}{% if loop.first and m.role == 'system' %}"
        + _framed(("", "<｜hy_place▁holder▁no▁3｜>"), trim=False) + "{% elif m.role == 'assistant' %}"
        + _framed(("<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁2｜>"), trim=False) + "{% elif m.role == 'user' %}"
        + _framed(("<｜hy_User｜>", "<｜hy_Assistant｜>"), trim=False) + "{% endif %}{% endfor %}"
    )  # fmt: skip


def _hunyuan_vl() -> str:
    return (
        _print("<｜hy_begin▁of▁sentence｜>") + "{% for m in messages %}{% if loop.first and m.role == 'system' %}"
        + _framed(("", "<｜hy_place▁holder▁no▁3｜>"), trim=False) + "{% elif m.role == 'user' %}"
        + _framed(("", "<｜hy_User｜>"), trim=False) + "{% elif m.role == 'assistant' %}"
        + _framed(("", "<｜hy_Assistant｜>"), trim=False) + "{% endif %}{% endfor %}"
    )  # fmt: skip


def _pangu() -> str:
    names = {"system": "系统", "user": "用户", "assistant": "助手", "tool": "工具", "function": "方法"}
    return (
        "{% set names = " + json.dumps(names, ensure_ascii=False) + " %}{% for m in messages %}"
        "{% if loop.first and m.role != 'system' %}" + _print("[unused9]系统：[unused10]") + "{% endif %}"
        "{% if m.role in names %}{{ '[unused9]' ~ names[m.role] ~ '：' ~ m.content ~ '[unused10]' }}{% endif %}"
        "{% endfor %}" + _opening("[unused9]助手：")
    )  # fmt: skip


_TEMPLATES: dict[str, Callable[[], str]] = {
    "bailing": lambda: _bailing("", "", "<role>ASSISTANT</role>"),
    "bailing-think": lambda: _bailing("", "", "<role>ASSISTANT</role><think>"),
    "bailing2": lambda: _bailing(
        "{% if not messages or messages[0].role != 'system' %}"
        + _print("<role>SYSTEM</role>detailed thinking off<|role_end|>")
        + "{% endif %}",
        "<|role_end|>",
        "<role>ASSISTANT</role>",
    ),
    "chatglm3": lambda: _turns(other=("<|{role}|>\n ", ""), start="[gMASK]sop", answer="<|assistant|>"),
    "chatglm4": lambda: _turns(other=("<|{role}|>\n", ""), start="[gMASK]<sop>", answer="<|assistant|>\n"),
    "chatml": lambda: _turns(other=("<|im_start|>{role}\n", "<|im_end|>\n"), answer="<|im_start|>assistant\n"),
    "command-r": lambda: _turns(
        system=("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        user=("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        assistant=("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        answer="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        trim="all",
    ),
    "deepseek": lambda: _turns(
        system=("", ""),
        user=("### Instruction:\n", "\n"),
        assistant=("### Response:\n", "\n<|EOT|>\n"),
        answer="### Response:\n",
    ),
    "deepseek-ocr": lambda: _turns(other=("", "")),
    "deepseek2": lambda: _turns(
        system=("", "\n\n"),
        user=("User: ", "\n\n"),
        assistant=("Assistant: ", "<｜end▁of▁sentence｜>"),
        answer="Assistant:",
    ),
    "deepseek3": lambda: _turns(
        system=("", "\n\n"),
        user=("<｜User｜>", ""),
        assistant=("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        answer="<｜Assistant｜>",
    ),
    "exaone-moe": lambda: _turns(
        system=("<|system|>\n", "<|endofturn|>\n"),
        user=("<|user|>\n", "<|endofturn|>\n"),
        assistant=("<|assistant|>\n", "<|endofturn|>\n"),
        tool=("<|tool|>\n", "<|endofturn|>\n"),
        answer="<|assistant|>\n",
        trim="all",
    ),
    "exaone3": lambda: _turns(
        system=("[|system|]", "[|endofturn|]\n"),
        user=("[|user|]", "\n"),
        assistant=("[|assistant|]", "[|endofturn|]\n"),
        answer="[|assistant|]",
        trim="all",
    ),
    "exaone4": lambda: _turns(
        system=("[|system|]", "[|endofturn|]\n"),
        user=("[|user|]", "\n"),
        assistant=("[|assistant|]", "[|endofturn|]\n"),
        tool=("[|tool|]", "[|endofturn|]\n"),
        answer="[|assistant|]",
        trim="all",
    ),
    "falcon3": lambda: _turns(other=("<|{role}|>\n", "\n"), answer="<|assistant|>\n"),
    "gemma": lambda: _without_system(
        user=("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant=("<start_of_turn>model\n", "<end_of_turn>\n"),
        other=("<start_of_turn>{role}\n", "<end_of_turn>\n"),
        join="\n\n",
        trim=True,
        answer="<start_of_turn>model\n",
    ),
    "gigachat": _gigachat,
    "glmedge": lambda: _turns(other=("<|{role}|>\n", ""), answer="<|assistant|>"),
    "gpt-oss": lambda: _turns(
        assistant=("<|start|>assistant<|message|>", "<|return|>"),
        other=("<|start|>{role}<|message|>", "<|end|>"),
        answer="<|start|>assistant",
    ),
    "granite": lambda: _granite(("<|start_of_role|>{role}<|end_of_role|><|tool_call|>", "<|end_of_text|>\n")),
    "granite-4.0": lambda: _granite(("<|start_of_role|>assistant<|end_of_role|><|tool_call|>", "<|end_of_text|>\n")),
    "granite-4.1": lambda: _granite(("<|start_of_role|>assistant<|end_of_role|><|tool_call|>", "<|end_of_text|>\n")),
    "grok-2": lambda: _turns(
        system=("System: ", "<|separator|>\n\n"),
        user=("Human: ", "<|separator|>\n\n"),
        assistant=("Assistant: ", "<|separator|>\n\n"),
        answer="Assistant:",
        trim="system,user",
    ),
    "hunyuan-dense": _hunyuan_dense,
    "hunyuan-moe": lambda: _turns(
        system=("<|startoftext|>", "<|extra_4|>"),
        assistant=("", "<|eos|>"),
        other=("<|startoftext|>", "<|extra_0|>"),
    ),
    "hunyuan-vl": _hunyuan_vl,
    "kimi-k2": lambda: _turns(
        system=("<|im_system|>system<|im_middle|>", "<|im_end|>"),
        user=("<|im_user|>user<|im_middle|>", "<|im_end|>"),
        assistant=("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
        tool=("<|im_system|>tool<|im_middle|>", "<|im_end|>"),
        other=("", "<|im_end|>"),
        answer="<|im_assistant|>assistant<|im_middle|>",
    ),
    "llama2": lambda: _llama2(("", "\n"), "[INST] ", trim=False),
    "llama2-sys": lambda: _llama2(("<<SYS>>\n", "\n<</SYS>>\n\n"), "[INST] ", trim=False),
    "llama2-sys-bos": lambda: _llama2(("<<SYS>>\n", "\n<</SYS>>\n\n"), "<s>[INST] ", trim=False),
    "llama2-sys-strip": lambda: _llama2(("<<SYS>>\n", "\n<</SYS>>\n\n"), "[INST] ", trim=True),
    "llama3": lambda: _turns(
        other=("<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>"),
        answer="<|start_header_id|>assistant<|end_header_id|>\n\n",
        trim="all",
    ),
    "llama4": lambda: _turns(
        other=("<|header_start|>{role}<|header_end|>\n\n", "<|eot|>"),
        answer="<|header_start|>assistant<|header_end|>\n\n",
        trim="all",
    ),
    "megrez": lambda: _turns(
        other=("<|role_start|>{role}<|role_end|>", "<|turn_end|>"), answer="<|role_start|>assistant<|role_end|>"
    ),
    "minicpm": lambda: _turns(user=("<用户>", "<AI>"), other=("", ""), trim="all"),
    "mistral-v1": lambda: _mistral(" ", " ", trim=False),
    "mistral-v3": lambda: _mistral("", " ", trim=True),
    "mistral-v3-tekken": lambda: _mistral("", "", trim=False),
    "mistral-v7": lambda: _turns(
        system=("[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"), user=("[INST] ", "[/INST]"), other=(" ", "</s>")
    ),
    "mistral-v7-tekken": lambda: _turns(
        system=("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), user=("[INST]", "[/INST]"), other=("", "</s>")
    ),
    "monarch": _monarch,
    "openchat": _openchat,
    "orion": lambda: _without_system(
        user=("Human: ", "\n\nAssistant: </s>"),
        assistant=("", "</s>"),
        other=("", "</s>"),
        join="\n\n",
        trim=False,
        answer="",
    ),
    "pangu-embedded": _pangu,
    "phi3": lambda: _turns(other=("<|{role}|>\n", "<|end|>\n"), answer="<|assistant|>\n"),
    "phi4": lambda: _turns(
        other=("<|im_start|>{role}<|im_sep|>", "<|im_end|>"), answer="<|im_start|>assistant<|im_sep|>"
    ),
    "rwkv-world": _rwkv_world,
    "seed_oss": lambda: _turns(
        other=("<seed:bos>{role}\n", "<seed:eos>"),
        assistant=("<seed:bos>assistant\n", "<seed:eos>"),
        answer="<seed:bos>assistant\n",
        trim="assistant",
    ),
    "smolvlm": lambda: _turns(
        system=("", "\n\n"),
        user=("User: ", "<end_of_utterance>\n"),
        other=("Assistant: ", "<end_of_utterance>\n"),
        start="<|im_start|>",
        answer="Assistant:",
    ),
    "solar-open": lambda: _turns(other=("<|begin|>{role}<|content|>", "<|end|>"), answer="<|begin|>assistant"),
    "vicuna": lambda: _turns(
        system=("", "\n\n"), user=("USER: ", "\n"), assistant=("ASSISTANT: ", "</s>\n"), answer="ASSISTANT:"
    ),
    "vicuna-orca": lambda: _turns(
        system=("SYSTEM: ", "\n"), user=("USER: ", "\n"), assistant=("ASSISTANT: ", "</s>\n"), answer="ASSISTANT:"
    ),
    "yandex": lambda: _turns(
        user=(" Пользователь: ", "\n\n"), assistant=(" Ассистент: ", "\n\n"), answer=" Ассистент:[SEP]"
    ),
    "zephyr": lambda: _turns(other=("<|{role}|>\n", "<|endoftext|>\n"), answer="<|assistant|>\n"),
}  # fmt: skip

NAMES: tuple[str, ...] = tuple(_TEMPLATES)
"""Every built-in name, in alphabetical order."""
