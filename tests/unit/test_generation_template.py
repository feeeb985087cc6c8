"""Chat templates in Python: the environment they are written for, and its walls."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.unit import smollm
from webkiln.errors import ChatTemplateError, InputError
from webkiln.generation import ChatTemplate

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]
EACH = "{% for m in messages %}BODY{% endfor %}"


def render(text: str, messages=TURNS, **options) -> str:
    return ChatTemplate(text, {"bos": "<s>", "eos": "</s>"}).render(messages, **options)


def test_smollm2s_own():
    own = smollm.tokenizer()
    template = ChatTemplate(own.chat_template, own.tokens)
    assert template.render(TURNS) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert template.render(TURNS[1:2], add_generation_prompt=False) == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ bos_token }}{{ messages | length }}{{ eos_token }}", "<s>4</s>"),
        ("{{ unk_token }}|{{ tools is none }}|{{ documents is none }}", "|True|True"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        (EACH.replace("BODY", "{% if loop.last %}{% break %}{% endif %}{{ m.role[0] }}"), "sua"),
        (EACH.replace("BODY", "{% if loop.first %}{% continue %}{% endif %}{{ m.role }}"),
         "userassistantuser"),
        ("{% generation %}{{ messages[2].content }}{% endgeneration %}", "Hello!"),
        ("{{ {'b': 'é<', 'a': [1, none]} | tojson }}", '{"b": "é<", "a": [1, null]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{% set ns = namespace(n=0) %}" + EACH.replace("BODY", "{% set ns.n = ns.n + 1 %}")
         + "{{ ns.n }}", "4"),
        ("{{ messages[0].content | trim | upper }}", "BE BRIEF."),
    ],
)  # fmt: skip
def test_what_templates_rely_on(text, expected):
    assert render(text) == expected


def test_the_date_is_todays():
    assert render("{{ strftime_now('%Y-%m') }}") == datetime.now().strftime("%Y-%m")


def test_variables_of_the_caller():
    text = "{{ enable_thinking | default('unset') }}"
    assert render(text) == "unset"
    assert render(text, variables={"enable_thinking": False}) == "False"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages.__init__.__globals__ }}",
        "{% set x = messages[0].update({'role': 'x'}) %}",
    ],
)
def test_templates_can_reach_nothing_else(text):
    with pytest.raises(ChatTemplateError):
        render(text + "{{ undefined_thing.attribute }}")
    assert TURNS[0] == {"role": "system", "content": "Be brief."} and len(TURNS) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{% for %}", "broken"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{{ nothing.attribute }}", "failed: 'nothing' is undefined"),
        ("{{ 1 / 0 }}", "failed: division by zero"),
        ("{{ messages[0]['content'] + 1 }}", "failed"),
    ],
)
def test_templates_that_fail_are_named(text, says):
    with pytest.raises(ChatTemplateError, match=says) as error:
        render(text)
    assert error.value.hint


def test_messages_are_checked_and_left_alone():
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}], "name": "n"}]
    assert render("{{ messages[0].content }}{{ messages[0].name }}", parts) == "an"
    assert isinstance(parts[0]["content"], list)
    assert render("{{ messages[0].content is none }}", [{"role": "tool"}]) == "True"
    with pytest.raises(InputError, match="message 0 is list"):
        render("", [[]])
