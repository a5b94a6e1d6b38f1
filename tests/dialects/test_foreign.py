"""Thoughts of other providers' models are taken out of requests that go on as they came, and nothing else is."""

from base64 import b64encode
from typing import Any

import orjson
import pytest

from agw_proxy.config.values import Form
from agw_proxy.dialects.base import SEAL
from agw_proxy.dialects.foreign import without_foreign
from agw_proxy.dialects.gemini_names import SKIP_VALIDATION
from agw_proxy.policy.affinity import SEALS, sealed

Tree = dict[str, Any]
SAID = {"type": "text", "text": "agw: is said here"}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}
SEALED = b64encode(b"agw:chat:SIG").decode()


def thought(signature: str) -> Tree:
    return {"type": "thinking", "thinking": "hm", "signature": signature}


def cleaned(form: Form, tree: Any, model: str = "claude-sonnet-4-5") -> Any:
    found = without_foreign(form, orjson.dumps(tree), model)
    return None if found is None else orjson.loads(found)


def turns(*content: Tree, **members: Any) -> Tree:
    return {
        "model": "m",
        **members,
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [*content]}],
    }


def test_how_they_are_known() -> None:
    marks = [orjson.dumps(text)[:-1] for text in (SEAL, b64encode(SEAL.encode()).decode()[:5], "rs_req_")]
    assert list(SEALS[:3]) == marks
    assert sealed(orjson.dumps(thought("")))
    assert sealed(orjson.dumps(thought("agw:chat:x")))
    assert not sealed(orjson.dumps({**thought("own"), "text": "say agw: here"}))


@pytest.mark.parametrize(
    "foreign", [thought("agw:chat:x"), thought(""), {"type": "redacted_thinking", "data": "agw:gemini:S"}]
)
def test_anthropic_gets_its_own_thoughts_alone(foreign: Tree) -> None:
    own = thought("own")
    assert cleaned("messages", turns(own, foreign, SAID)) == turns(own, SAID)
    assert cleaned("messages", turns(own, SAID)) is None
    assert cleaned("messages", turns(foreign))["messages"] == turns()["messages"][:1]


def test_what_others_behind_anthropics_api_do_not_sign_stays() -> None:
    assert cleaned("messages", turns(thought(""), SAID), "deepseek-chat") is None
    assert cleaned("messages", turns(thought("agw:chat:x"), SAID), "deepseek-chat") == turns(SAID)


@pytest.mark.parametrize(("kind", "stays"), [("enabled", False), ("adaptive", True)])
def test_thinking_by_a_budget_is_switched_off_where_the_chain_has_no_thought(kind: str, stays: bool) -> None:
    asked = turns(thought("agw:chat:x"), USE, thinking={"type": kind})
    asked["messages"].append(RESULT)
    assert ("thinking" in cleaned("messages", asked)) is stays
    asked["messages"].append({"role": "user", "content": "and?"})
    assert "thinking" in cleaned("messages", asked)


def test_openai_gets_its_own_thoughts_alone() -> None:
    own: Tree = {"type": "reasoning", "id": "rs_68", "summary": [], "encrypted_content": "gAAA"}
    call = {"type": "function_call", "id": "fc_req_1_0", "call_id": "c", "name": "f", "arguments": "{}"}
    foreign = [
        {**own, "id": "rs_req_1_0", "encrypted_content": "agw:messages:x"},
        {**own, "id": "rs_req_1_1", "encrypted_content": "agw:after:agw:gemini:x"},
        {"type": "reasoning", "id": "rs_req_1_2", "summary": []},
    ]
    asked = {"input": [{"role": "user", "content": "q"}, own, *foreign, call]}
    assert cleaned("responses", asked) == {"input": [{"role": "user", "content": "q"}, own, call]}
    assert cleaned("responses", {"input": [own, call]}) is None
    assert cleaned("responses", {"input": "rs_req_"}) is None


@pytest.mark.parametrize("name", ["thoughtSignature", "thought_signature"])
def test_google_gets_its_own_signatures_alone(name: str) -> None:
    call: Tree = {"functionCall": {"name": "f", "args": {}}}
    own = {**call, name: "c2ln"}
    parts = [{"text": "hm", "thought": True, name: SEALED}, {**call, name: SEALED}, {"text": "a", name: SEALED}, own]
    lone = {"role": "model", "parts": [{"text": "hm", "thought": True, name: SEALED}]}
    asked = {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": parts}, lone]}
    model_turn = [{**call, "thoughtSignature": SKIP_VALIDATION}, {"text": "a"}, own]
    assert [each["parts"] for each in cleaned("gemini", asked, "gemini-3-pro")["contents"][1:]] == [model_turn]
    older = cleaned("gemini", asked, "gemini-2.5-pro")["contents"][1]["parts"]
    assert older == [call, {"text": "a"}, own]
    assert cleaned("gemini", {"contents": [{"parts": [own, {"text": "x", name: "YWd3O!"}]}]}) is None


@pytest.mark.parametrize("form", ["messages", "responses", "gemini", "chat"])
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"messages":7,"input":7,"contents":7}', b'{"messages":[7,{"role":"assistant","content":[7]}],"input":[7]}',
     b'{"contents":[7,{"parts":7},{"parts":[7]}]}', b'{"input":' + b"[" * 300 + b"]" * 300 + b"}"],
)  # fmt: skip
def test_what_is_no_request_stays_as_it_is(form: Form, body: bytes) -> None:
    assert without_foreign(form, body, "m") is None
