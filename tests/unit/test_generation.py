"""Answers of a language model: pieces, cache, limits, stops, conversations, errors."""

from __future__ import annotations

import pytest

from tests.unit.fake_llm import BEGIN, END, VOCABULARY, FakeRunner, model, script
from webkiln.errors import ChatTemplateError, ContextFullError, InputError, PromptTooLongError
from webkiln.generation import Answer, Chat

HELLO = [{"role": "user", "content": "hello"}]


def hashing(held: list[int]) -> int:
    """A token that any change of what was said before changes."""
    value = 7
    for token in held:
        value = (value * 31 + token) % 1_000_003
    return value % (BEGIN - 1)


def answer(found, prompt, **options):
    made = Answer(found, prompt, options)
    return "".join(made), made


def test_an_answer_ends_where_the_model_ends_it():
    text, made = answer(model(FakeRunner(script("Hi there!"))), HELLO)
    assert text == made.text == "Hi there!"
    assert made.finish_reason == "stop"
    assert made.tokens[-1] == END
    assert made.usage.completion_tokens == 10
    assert made.usage.decode_tokens_per_second > 0 and made.usage.prefill_tokens_per_second > 0


def test_prefill_in_chunks_then_decode():
    runner = FakeRunner(script("ab", after=19), chunk=8)
    found = model(runner)
    answer(found, [5] * 19)
    assert runner.runs == [
        ("prefill", 0, 8), ("prefill", 8, 8), ("prefill", 16, 3), ("decode", 19, 1),
        ("decode", 20, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17])
def test_chunks_do_not_change_the_answer(length):
    prompt = [3 + i % 50 for i in range(length)]
    tokens = [
        answer(model(FakeRunner(hashing, chunk=chunk)), prompt, max_tokens=12)[1].tokens
        for chunk in (1, 3, 8, 64)
    ]
    assert all(found == tokens[0] for found in tokens)


def test_characters_come_whole():
    for said in ["é😀日", "a\ufeffb\u200d", "👩‍👩‍👧‍👦 ok"]:
        made = Answer(model(FakeRunner(script(said))), HELLO, {})
        pieces = list(made)
        assert "".join(pieces) == said
        assert all("\ufffd" not in piece for piece in pieces)


def test_half_a_character_at_the_end_is_replaced():
    said = "ok " + "😀"
    text, made = answer(model(FakeRunner(script(said.encode()[:-1]))), HELLO)
    assert text == "ok \ufffd"
    assert answer(model(FakeRunner(script(b"a\xffb\xc3("))), HELLO)[0] == "a\ufffdb\ufffd("
    assert answer(model(FakeRunner(script(said))), HELLO, max_tokens=5)[0] == "ok \ufffd"
    assert made.finish_reason == "stop"


@pytest.mark.parametrize(
    ("stop", "expected", "reason"),
    [
        ("three", "one two ", "stop"),
        (["no", "two"], "one ", "stop"),
        ("threefold", "one two three", "stop"),  # held back, then given
        ("e t", "on", "stop"),
        (["two t", "wo"], "one t", "stop"),
        ("x", "one two three", "stop"),
        ([], "one two three", "stop"),
    ],
)
def test_stop_texts(stop, expected, reason):
    text, made = answer(model(FakeRunner(script("one two three"))), HELLO, stop=stop)
    assert (text, made.finish_reason) == (expected, reason)


def test_a_stop_text_is_never_shown_in_parts():
    made = Answer(model(FakeRunner(script("abcabd"))), HELLO, {"stop": "abd"})
    assert list(made) == ["abc"]


def test_special_tokens_are_not_text():
    said = {0: END - 1, 1: END + 1, 2: END}  # <|begin|>, <custom tag>, <|im_end|>
    text, _ = answer(model(FakeRunner(lambda held: said[len(held) - 3])), [1, 2, 3])
    assert text == "<custom tag>"


def test_max_tokens():
    text, made = answer(model(FakeRunner(script("12345"))), HELLO, max_tokens=3)
    assert (text, made.finish_reason, made.usage.completion_tokens) == ("123", "length", 3)


def test_the_end_of_the_context_ends_the_answer():
    runner = FakeRunner(lambda held: 40, context=16)
    text, made = answer(model(runner), [1] * 10)
    assert made.finish_reason == "length"
    assert len(text) == 7  # the last one is not read again
    assert runner.runs[-1] == ("decode", 15, 1)


def test_a_prompt_that_leaves_no_room_is_refused_by_name():
    found = model(FakeRunner(hashing, context=16))
    with pytest.raises(PromptTooLongError, match=r"17 tokens.*16") as error:
        Answer(found, [1] * 17, {})
    assert "--max sequence" in str(error.value)
    assert answer(found, [1] * 16)[1].finish_reason == "length"


def test_a_conversation_that_leaves_no_room_is_refused_by_name():
    chat = Chat(model(FakeRunner(script("yes"), context=64)))
    with pytest.raises(ContextFullError, match="64") as error:
        for _ in range(10):
            chat.send("and?")
    assert "new conversation" in str(error.value)
    said = chat.messages
    assert said[-1] == {"role": "assistant", "content": "yes"}  # as before the question
    with pytest.raises(PromptTooLongError):
        chat.send("the last message alone " * 10)
    with pytest.raises(PromptTooLongError):
        Chat(model(FakeRunner(hashing, context=16))).send("a question of more than 16 tokens")


# --- the cache ------------------------------------------------------------------------------------


def test_the_next_turn_runs_only_what_is_new():
    runner = FakeRunner(script("fine"), chunk=64)
    chat = Chat(model(runner), "Be brief.")
    assert chat.send("How are you?") == "fine"
    runner.runs.clear()
    second = chat.send("And you?", stream=True)
    assert "".join(second) == "fine"
    assert second.usage.cached_tokens > 30
    (program, position, count), *_ = runner.runs
    assert (program, position) == ("prefill", second.usage.cached_tokens)
    assert position + count == second.usage.prompt_tokens
    assert [m["role"] for m in chat.messages] == [
        "system", "user", "assistant", "user", "assistant"
    ]  # fmt: skip


def test_reuse_gives_the_same_answer_as_a_fresh_run():
    shared = model(FakeRunner(hashing))
    prompts = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [1, 2, 9, 4, 5], [7], [1, 2, 9, 4, 5, 6, 7]]
    for prompt in prompts:
        fresh = answer(model(FakeRunner(hashing)), prompt, max_tokens=5)[1].tokens
        assert answer(shared, prompt, max_tokens=5)[1].tokens == fresh


def test_answers_that_take_turns_do_not_mix():
    shared = model(FakeRunner(hashing))
    prompts = ([1, 2, 3], [1, 2, 4], [9])
    made = [Answer(shared, prompt, {"max_tokens": 6, "stop": "never"}) for prompt in prompts]
    for _ in range(20):
        for one in made:
            next(one, None)
    for prompt, one in zip(prompts, made, strict=True):
        fresh = answer(model(FakeRunner(hashing)), prompt, max_tokens=6)[1]
        assert one.tokens == fresh.tokens and one.text == fresh.text


def test_an_interrupted_run_is_not_taken_for_granted():
    runner = FakeRunner(hashing, chunk=4)
    found = model(runner)
    runner.fail_at = 8
    with pytest.raises(KeyboardInterrupt):
        answer(found, [1] * 10)
    runner.fail_at = None
    runner.runs.clear()
    fresh = answer(model(FakeRunner(hashing)), [1] * 10, max_tokens=3)[1].tokens
    assert answer(found, [1] * 10, max_tokens=3)[1].tokens == fresh
    assert runner.runs[0] == ("prefill", 8, 2)  # what was whole is kept


def test_reset_forgets():
    runner = FakeRunner(hashing)
    found = model(runner)
    answer(found, [1, 2, 3], max_tokens=1)
    assert found.cached([1, 2, 3, 4]) == 3
    found.reset()
    assert found.cached([1, 2, 3, 4]) == 0


def test_leaving_early_keeps_what_was_said():
    chat = Chat(model(FakeRunner(script("a long story"))))
    for piece in chat.send("Tell", stream=True):
        if piece == "o":
            break
    assert chat.messages[-1] == {"role": "assistant", "content": "a lo"}


# --- prompts --------------------------------------------------------------------------------------


def test_prompts_become_ids():
    found = model(FakeRunner(hashing))
    assert found.encode("hello") == found.vocabulary.encode("hello")
    assert found.vocabulary.decode(found.encode(HELLO)) == (
        "<|begin|>user: hello<|im_end|><|begin|>assistant: "
    )
    generation = {
        "context": 256, "chunk": 8, "ids": "input_ids", "position": "position",
        "logits": "logits", "eos": [END], "bos": BEGIN, "add_bos": True,
    }  # fmt: skip
    begins = model(FakeRunner(hashing), generation=generation)
    assert begins.encode("hello")[0] == BEGIN
    assert begins.encode("") == [BEGIN]
    assert begins.encode(HELLO).count(BEGIN) == 2  # the template has written it


def test_parts_of_text_are_joined():
    found = model(FakeRunner(hashing))
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert found.encode([{"role": "user", "content": parts}]) == found.encode(HELLO)


def test_variables_for_the_template():
    found = model(FakeRunner(hashing), chat_template="{{ mood }}")
    assert found.encode(HELLO, {"mood": "calm"}) == found.vocabulary.encode("calm")
    options = {"chat_template_kwargs": {"mood": "calm"}, "max_tokens": 1}
    assert Answer(found, HELLO, options).usage.prompt_tokens == 4


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ([], "empty"),
        ([1, VOCABULARY], f"no token {VOCABULARY}"),
        ([-1], "no token -1"),
        ([{"content": "x"}], "no role"),
        ([{"role": "user", "content": 3}], "int"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "not text"),
        (["hello"], "str, not a dict"),
    ],
)
def test_prompts_that_are_none_are_refused(prompt, says):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(InputError, match=says):
        model(FakeRunner(hashing), chat_template=template).encode(prompt)


def test_without_a_template_messages_are_refused():
    found = model(FakeRunner(hashing), chat_template=None)
    assert found.encode("x")
    with pytest.raises(InputError, match="no chat template"):
        found.encode(HELLO)


def test_a_template_that_refuses_is_named():
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ChatTemplateError, match="roles must alternate"):
        model(FakeRunner(hashing), chat_template=template).encode(HELLO)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -1}, "temperature should be a number from 0 to 2, but is -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "'hot'"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_k": -1}, "top_k should be a whole number from 0"),
        ({"top_k": 2.5}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty should be a number above 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"seed": 1.5}, "seed should be a whole number"),
        ({"max_tokens": 0}, "max_tokens should be a whole number from 1"),
        ({"max_tokens": 1.0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": ""}, "stop should be a text"),
        ({"stop": ["a", 1]}, "stop"),
        ({"temprature": 1}, "no option 'temprature'"),
    ],
)
def test_invalid_options_are_named(options, says):
    with pytest.raises(InputError, match=says):
        Answer(model(FakeRunner(hashing)), "x", options)


def test_options_of_send_come_before_those_of_the_chat_and_the_bundle():
    runner = FakeRunner(script("12345"))
    chat = Chat(model(runner), max_tokens=3)
    assert chat.send("x") == "123"
    assert chat.send("x", max_tokens=2) == "12"
    with pytest.raises(InputError, match="tempo"):
        Chat(model(runner), tempo=3)


def test_no_option_is_the_same_as_none():
    made = Answer(model(FakeRunner(script("ab"))), HELLO, {"max_tokens": None, "seed": None})
    assert "".join(made) == "ab"


def test_another_tasks_bundle_is_refused():
    from webkiln.generation import CausalModel

    with pytest.raises(InputError, match="image-classification"):
        CausalModel({"task": {"name": "image-classification"}}, lambda *_: {}, lambda _: b"")
