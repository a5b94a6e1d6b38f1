"""Whose a request is, and what it may need: the words of its body, by functions that both lanes call."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot import subjects
from agw_proxy._hot.limit import COST, PER_KEY, Limits, Rule, Table
from agw_proxy._hot.money import Tariff
from agw_proxy._hot.peek import peek
from agw_proxy._hot.reserve import PARTED, SERVED, UNSERVED, Reserve, estimate
from agw_proxy._hot.tokens import Learner, count
from agw_proxy.types import Usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
SPACES = st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " :\t")])


def session(tree: object, header: bytes | None = None, *, messages: bool = False, derive: bool = True) -> int:
    body = json.dumps(tree).encode()
    return subjects.session(body, peek(body), header, 7, messages, derive)


@given(TEXT, TEXT, TEXT, SPACES, st.booleans())
def test_later_turns_belong_to_the_session_that_they_begin_like(
    system: str, first: str, more: str, separators: tuple[str, str], blocks: bool
) -> None:
    begun = [{"role": "system", "content": system}, {"role": "user", "content": first}]
    marked = [{"type": "text", "text": first, "cache_control": {"type": "ephemeral"}}]
    later = [begun[0], {"role": "user", "content": marked if blocks else first}, {"role": "assistant", "content": more}]
    tree = {"messages": later, "model": "m", "temperature": 1}
    body = json.dumps(tree, separators=separators).encode()
    found = subjects.session(body, peek(body), None, 7, False, True)
    assert found == session({"model": "m", "messages": begun}) != 0
    assert session({"messages": [begun[0], {"role": "user", "content": first + "!"}]}) != found


@pytest.mark.parametrize("system", ["systemInstruction", "system_instruction"])
def test_a_conversation_in_googles_form_is_known_by_its_beginning(system: str) -> None:
    begun: list[object] = [{"parts": [{"text": "hi"}], "role": "user"}]
    more = [{"role": "model", "parts": [{"text": "hello"}]}, {"role": "user", "parts": [{"text": "so"}]}]
    said = {system: {"parts": [{"text": "Be brief"}]}}
    found = session({"model": "m", **said, "contents": begun})
    assert found == session({"contents": begun + more, **said}) != 0
    assert len({found, session({"contents": begun}), session({"contents": [*more, *begun]})}) == 3


@given(st.recursive(TEXT | st.integers() | st.none(), lambda item: st.lists(item) | st.dictionaries(TEXT, item)))
def test_anything_may_stand_where_a_name_is_looked_for(value: object) -> None:
    members = "metadata conversation prompt_cache_key messages input system instructions n best_of prompt contents"
    for member in [*members.split(), "systemInstruction", "system_instruction"]:
        body = json.dumps({member: value}).encode()
        seen = peek(body)
        subjects.session(body, seen, None, 7, True, True)
        subjects.user(body, seen, True)
        prompts = len(value) if member == "prompt" and isinstance(value, list) else 1
        assert 1 <= subjects.choices(body, seen) <= max(prompts, 128)


@pytest.mark.parametrize(
    ("tree", "answers"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 3, "best_of": 5}, 5),
        ({"best_of": 10**9}, 128),
        ({"n": "3", "best_of": -2}, 1),
        ({"prompt": "a, b"}, 1),
        ({"prompt": ["a, b", '"]', ""]}, 3),
        ({"prompt": ["a", "b"], "n": 4}, 8),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3], []]}, 3),
        ({"prompt": []}, 1),
        ({"prompt": {"id": "stored"}}, 1),
    ],
)
def test_answers_are_counted_by_choices_and_prompts(tree: dict[str, object], answers: int) -> None:
    for indent in (None, 2):
        body = json.dumps(tree, indent=indent).encode()
        assert subjects.choices(body, peek(body)) == answers


def test_names_are_stronger_than_beginnings_and_the_header_is_strongest() -> None:
    messages = [{"role": "user", "content": "hi"}]
    trees = [
        {"messages": messages},
        {"messages": messages, "prompt_cache_key": "p"},
        {"messages": messages, "prompt_cache_key": "p", "conversation": "c"},
    ]
    found = [session(tree) for tree in trees]
    assert len(set(found)) == 3
    assert session(trees[2], b"h") not in found
    assert session(trees[2], b"h") == session(trees[0], b"h")
    assert session({"conversation": {"id": "c"}}) == session({"conversation": "c"})
    assert session({"messages": messages}, derive=False) == 0
    assert session({"prompt": "hi"}) == 0


def test_a_session_is_of_its_key() -> None:
    body = b'{"conversation":"c"}'
    assert subjects.session(body, peek(body), None, 1, False, True) != subjects.session(
        body, peek(body), None, 2, False, True
    )


@pytest.mark.parametrize(
    ("told", "user"),
    [
        ("user_a_account_b_session_c", "user_a_account_b"),
        ("plain", "plain"),
        ('{"device_id": "d", "account_uuid": "a", "session_id": "s"}', "a"),
        ('{"device_id": "d", "account_uuid": "", "session_id": "s"}', "d"),
        ('{"device_id": "d", "account_uuid": "\\ud800"}', "d"),
        ('{"device_id": "\\ud800"}', '{"device_id": "\\ud800"}'),
        ("{broken", "{broken"),
        ("été", "été"),
        ("", None),
        ("\ud800", None),
        (7, None),
    ],
)
def test_the_user_of_messages_stands_in_its_metadata(told: object, user: str | None) -> None:
    body = json.dumps({"metadata": {"user_id": told}}).encode()
    assert subjects.user(body, peek(body), True) == user
    assert subjects.user(body, peek(body), False) is None


def test_another_body_is_refused() -> None:
    with pytest.raises(ValueError, match="not the body"):
        subjects.user(b"{}", peek(b'{"a":1}'), True)


def test_money_is_reserved_for_the_longest_answer_and_all_choices() -> None:
    tariff = Tariff(input=1_000_000, output=10_000_000, max_output=1000)
    body = b'{"messages":[{"role":"user","content":"hello there"}]}'
    raw = count(body)
    free = estimate(body, Learner(), tariff, -1, 1, True, False)
    assert (free.raw, free.cost) == (raw, raw + 10_000)
    assert estimate(body, Learner(), tariff, 50, 3, True, False).cost == raw + 1500
    assert estimate(body, Learner(), tariff, -1, 1, True, True).cost == raw + 2560
    assert estimate(body, Learner(), tariff, -1, 1, False, False).cost == raw
    assert estimate(body, None, None, 50, 1, True, False).cost == 0
    assert estimate(body, None, None, 1 << 40, 128 * 10**6, True, False).output == 1 << 40  # no product of that fits


@pytest.mark.parametrize(
    ("how", "usage", "content", "bytes_out", "spent"),
    [
        (SERVED, Usage(20, 5, 4), 3, 900, (20, 5)),
        (SERVED, Usage(20, -1, -1), 0, 900, (20, 0)),
        (SERVED, Usage(20, -1, -1), 3, 900, (20, 3)),
        (SERVED, Usage(), 3, 900, (10, 3)),
        (SERVED, Usage(), 0, 40, (10, 10)),
        (SERVED, Usage(), 0, 4000, (10, 100)),
        (PARTED, Usage(20, 1, -1), 7, 900, (20, 7)),
        (PARTED, Usage(), 0, 0, (10, 0)),
        (UNSERVED, Usage(20, 5, 4), 3, 900, (0, 0)),
    ],
)
def test_paid_is_what_is_known_to_have_been_used(
    how: int, usage: Usage, content: int, bytes_out: int, spent: tuple[int, int]
) -> None:
    tariff = Tariff(input=1_000_000, cached=0, output=10_000_000)
    read, written, cost = Reserve(9, 10, 100, 1000).spent(how, tariff, usage, content, bytes_out)
    assert (read, written) == spent
    cached = max(usage.cached, 0) if how != UNSERVED else 0
    assert cost == read - cached + 10 * written


def test_it_is_settled_once_and_learnt_from() -> None:
    limits = Limits(Table(slots=8, gates=8), [Rule("r", PER_KEY, COST, 1000, 10**9)])
    grant = limits.admit(1, key=1, cost=900)
    made, learner = Reserve(100, 100, 50, 900), Learner()
    assert made.settle(grant, SERVED, learner, Tariff(input=1_000_000), Usage(200, 10), 0, 0, 1)
    assert not made.settle(grant, UNSERVED, learner, Tariff(), Usage(), 0, 0, 1)
    assert limits.look(1, key=1)[0].remaining == 800
    assert learner.prompt(100) > 100


def test_a_prompt_is_looked_at_where_its_size_does_not_say_enough_or_money_is_counted() -> None:
    body = b'{"messages":[{"role":"user","content":"' + b"word " * 300 + b'"}]}'
    learner = Learner()
    first = estimate(body, learner, None, 50, 1, True, False, True)
    assert (first.raw > 0, first.size) == (True, len(body))
    limits = Limits(Table(slots=8, gates=8), [Rule("r", PER_KEY, COST, 1000, 10**9)])
    for now in range(20):
        grant = limits.admit(now, key=1)
        estimate(body, learner, None, 50, 1, True, False).settle(grant, SERVED, learner, None, Usage(700, 9), 0, 0, now)
    by_size = estimate(body, learner, None, 50, 1, True, False, True)
    assert (by_size.raw, by_size.prompt, by_size.output) == (0, 700, 50)
    assert estimate(body, learner, None, 50, 1, True, False, False).raw == first.raw
    by_size.settle(limits.admit(99, key=1), SERVED, learner, None, Usage(1400, 9), 0, 0, 99)
    assert estimate(body, learner, None, 50, 1, True, False, True).raw == first.raw


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("{}", (0, 1)),
        ('{"maxOutputTokens":40, "candidateCount" : 3}', (40, 3)),
        ('{"max_output_tokens":40,"candidate_count":0}', (40, 0)),
        ('{"maxOutputTokens":null}', (0, 1)),
        ('{"responseSchema":{"maxOutputTokens":7,"x":"}"},"maxOutputTokens":9999999999}', (9999999999, 1)),
        ('[{"maxOutputTokens":40}]', (0, 1)),
        ("null", (0, 1)),
        ('{"maxOutputTokens":10000000000}', None),
        ('{"maxOutputTokens":4e1}', None),
        ('{"maxOutputTokens":-4}', None),
        ('{"maxOutputTokens":"40"}', None),
        ('{"maxOutputTokens":null,"max_output_tokens":4}', None),
        ('{"candidateCount":1,"candidateCount":2}', None),
        ('{"max\\u004futputTokens":4}', None),
        ('{},"generation_config":{}', None),
    ],
)
def test_bounds_in_googles_form(config: str, found: tuple[int, int] | None) -> None:
    for name in ("generationConfig", "generation_config"):
        if name not in config:
            body = f'{{"contents":[],"{name}":{config}}}'.encode()
            assert subjects.bounds(body, peek(body)) == found
