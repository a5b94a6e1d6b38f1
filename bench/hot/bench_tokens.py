"""Counting tokens: compiled, by its portable loop, and by parsing the JSON alone, which a tokenizer needs first."""

import json

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.tokens import Learner, count, features
from agw_proxy.policy.tokens import readable
from tests.corpus.tokens import bodies


def chat(text: str) -> bytes:
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, "stream": True}, ensure_ascii=False).encode()


BODIES = {
    "English, 1.5 KB": chat("The meeting has moved to room 412; bring the printed agenda, please. " * 20),
    "Chinese, 1.5 KB": chat("会议改到三楼的小会议室,请带上打印好的议程。" * 21),
    "code, 1.8 KB": bodies()["code/python_ledger"],
    "tools, 2 KB": bodies()["tools/shop"],
    "English, 1 MB": chat("The meeting has moved to room 412; bring the printed agenda, please. " * 14_500),
}
each = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.benchmark(group=f"tokens: {name}")) for name in BODIES]
)


@each
def test_count_compiled(benchmark: BenchmarkFixture, name: str) -> None:
    assert benchmark(count, BODIES[name]) > 3


@each
def test_count_portable(benchmark: BenchmarkFixture, name: str) -> None:
    assert any(benchmark(features, BODIES[name], portable=True))


@each
def test_parse_json_alone(benchmark: BenchmarkFixture, name: str) -> None:
    assert benchmark(lambda: readable(json.loads(BODIES[name]))).texts


@pytest.mark.benchmark(group="tokens: a learner's prompt, output and lesson")
def test_learner_compiled(benchmark: BenchmarkFixture) -> None:
    learner = Learner()

    def exchange() -> int:
        learner.learn(300, 320, 150)
        return learner.prompt(300) + learner.output(-1, 4_096)

    assert benchmark(exchange) > 300
