"""The browser's tokens, texts and chat templates against those of `tokenizers` and `jinja2`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit import smollm
from tests.unit.test_gguf_tokenizer import CORPUS, byte_level, sentence_piece
from tests.unit.test_tasks_text import strange_texts
from tests.unit.typescript import run
from webkiln.errors import ChatTemplateError
from webkiln.frontends.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_from_gguf
from webkiln.generation.template import ChatTemplate
from webkiln.generation.text import TextStream, Vocabulary

TOKENS = """
import { TextStream } from "src/tasks/generation/detokenize.ts";
import { Vocabulary } from "src/tasks/generation/vocabulary.ts";
export function answer({ documents, texts }) {
  return documents.map((document) => {
    const vocabulary = new Vocabulary(JSON.parse(document));
    return texts.map((text) => {
      const ids = vocabulary.encode(text);
      const stream = new TextStream();
      const parts = ids.map((id) => stream.push(vocabulary.bytes(id)));
      return { ids, text: vocabulary.decode(ids), parts: [...parts, stream.flush()] };
    });
  });
}
"""


def streamed(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    stream = TextStream()
    return [*(stream.push(vocabulary.bytes_of(i)) for i in ids), stream.flush()]


def compare(tmp_path: Path, documents: list[bytes], texts: list[str], marks: bool = True) -> None:
    job = {"documents": [document.decode() for document in documents], "texts": texts}
    for document, found in zip(documents, run(tmp_path, TOKENS, job), strict=True):
        vocabulary = Vocabulary(document)
        for text, got in zip(texts, found, strict=True):
            ids = vocabulary.encode(text)
            assert got["ids"] == ids, text
            whole = [got["text"], vocabulary.decode(ids)]
            got_text, wanted = whole if marks else [one.replace("\ufeff", "") for one in whole]
            assert got_text == wanted, text
            assert got["parts"] == streamed(vocabulary, ids), text


SPECIAL = [
    "<|im_end|>",
    "a<|im_start|>b<|im_end|>\n",
    "<|begin|><custom tag> <|im_end|>he",
    "<s>he</s>",
]


def test_tokens_of_smollm2(tmp_path):
    texts = [*CORPUS, *SPECIAL, *strange_texts(300)]
    compare(tmp_path, [smollm.tokenizer().tokenizer_json], texts)


def test_tokens_of_every_pre_tokenizer(tmp_path):
    made = [tokenizer_from_gguf(byte_level(pre)).tokenizer_json for pre in PRE_TOKENIZERS]
    compare(tmp_path, made, [*CORPUS, *SPECIAL, *strange_texts(100)])


def test_tokens_of_sentence_piece(tmp_path):
    kinds = [sentence_piece(), sentence_piece(add_space_prefix=False)]
    made = [tokenizer_from_gguf(kind).tokenizer_json for kind in kinds]
    # Spelt in bytes, a byte order mark may get lost in the browser's library; not in streams.
    compare(tmp_path, made, [*CORPUS, *SPECIAL, *strange_texts(100)], marks=False)


TEMPLATES = """
import { chatTemplate } from "src/tasks/generation/template.ts";
export function answer(jobs) {
  return jobs.map(({ template, tokens, messages, variables }) => {
    try {
      return { text: chatTemplate({ chat_template: template, tokens })(messages, variables) };
    } catch (error) {
      return { code: error.code, message: error.message };
    }
  });
}
"""

# Of my own, each with what a family of real ones relies on.
LIKE_LLAMA = """
{{- bos_token }}
{%- if not date is defined %}{% set date = "26 Jul 2024" %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{%- if tools is not none %}{{ raise_exception("no tools") }}{% endif %}
{{- "[system]\\n" }}{{ "Today: " + date + "\\n" + system }}{{ "[end]" }}
{%- for message in messages %}
    {{- '[' + message['role'] + ']\\n' + message['content'] | trim + '[end]' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}
"""
LIKE_GEMMA = """
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate: ' ~ loop.index0) }}
{%- endif %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<turn>' + role + '\\n' + message.content | trim + '</turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt -%}<turn>model
{% endif %}
"""
LIKE_QWEN = """
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" %}
        {%- set ns.last = index %}{%- set ns.found = true %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '(' + message.role + ':' ~ loop.index ~ '/' ~ loop.length ~ ')' + content }}
    {%- if message.tool_calls %}
        {%- for call in message.tool_calls %}{{ call | tojson }}{% endfor %}
    {%- endif %}
    {%- if loop.index0 == ns.last %}!{% endif %}
    {%- if loop.last %}.{% else %},{% endif %}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}
"""
PLAIN = (
    "{% for m in messages %}{{ m.role.upper() }}: {{ m['content'] | replace('a', 'b') }}\n"
    "  {% endfor %}  \n{{ eos_token }}"
)

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello, naïve 😀 wörld"}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "a\n\nb  "}],
    [
        {"role": "user", "content": "What is {{ 1 + 1 }}? {% if x %}"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo."},
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("And ", "3?")]},
    ],
    [{"role": "user", "content": ""}, {"role": "user", "content": "<|im_end|>\t"}],
    [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"f": {"é": [1, "<"]}}]},
    ],
]  # fmt: skip


def rendered(job: dict[str, Any]) -> str | None:
    try:
        template = ChatTemplate(job["template"], job["tokens"])
        return template.render(job["messages"], variables=job["variables"])
    except ChatTemplateError:
        return None


def test_conversations_read_the_same(tmp_path):
    own = smollm.tokenizer()
    assert own.chat_template
    jobs = [
        {"template": template, "tokens": own.tokens, "messages": messages, "variables": variables}
        for template in (own.chat_template, LIKE_LLAMA, LIKE_GEMMA, LIKE_QWEN, PLAIN)
        for messages in CONVERSATIONS
        for variables in ({}, {"enable_thinking": False, "date": "1 May"})
    ]
    refused = 0
    for job, got in zip(jobs, run(tmp_path, TEMPLATES, jobs), strict=True):
        wanted = rendered(job)
        refused += wanted is None
        assert got.get("text") == wanted, (job, got)
        assert wanted is not None or got["code"] == "template-failed", got
    assert 0 < refused < len(jobs) / 2


def test_what_a_template_says_when_it_refuses(tmp_path):
    job = {"template": LIKE_GEMMA, "tokens": {}, "messages": CONVERSATIONS[1], "variables": {}}
    broken = job | {"template": "{% for %}"}
    first, second = run(tmp_path, TEMPLATES, [job, broken])
    assert "refused the messages: System role not supported." in first["message"]
    assert "can't be read" in second["message"]
