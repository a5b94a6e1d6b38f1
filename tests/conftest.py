"""What holds for every test: Hypothesis profiles, event loops, and which build of the compiled modules is under test.

- ``HYPOTHESIS_PROFILE``: ``fast`` (a fifth of the examples: slow builds), ``default``, ``deep`` (twenty-fold: fuzzing).
  Only the deep one draws at random: the same change passes or fails each time it is checked.
- ``@pytest.mark.both_loops``: an async test runs on asyncio's own loop too; all others run on uvloop, as the gateway.
- ``AGW_HOT_LIB``: the folder that the compiled modules must have been loaded from (the trace and sanitizer builds).
- ``SSL_CERT_FILE``: one authority that nobody has, unless it is set. Every client of an SDK reads the system's hundred
  and forty when it is made, which takes longer than most tests; all that tests ask is on this machine.
- ``--asyncio-debug`` (pytest-asyncio's) switches on asyncio's debug mode.
"""

import asyncio
import inspect
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trustme
import uvloop
from hypothesis import HealthCheck, settings

import agw_proxy._hot.limit

EXAMPLES = 100  # Hypothesis' own default
FACTORS = {"fast": 0.2, "default": 1.0, "deep": 20.0}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
PINNED = "_hypothesis_internal_use_settings"  # where Hypothesis keeps a test's own settings; it has no public place

for name, factor in FACTORS.items():
    settings.register_profile(
        name,
        max_examples=max(10, int(EXAMPLES * factor)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=name != "deep",
    )
settings.load_profile(PROFILE)


def pytest_configure(config: pytest.Config) -> None:
    """Register our marks; refuse to test another build than the one that was asked for."""
    config.addinivalue_line("markers", "both_loops: run this async test on asyncio's own loop and on uvloop")
    wanted = os.environ.get("AGW_HOT_LIB")
    loaded = Path(agw_proxy._hot.limit.__file__).resolve()
    if wanted and not loaded.is_relative_to(Path(wanted).resolve()):
        raise pytest.UsageError(f"the compiled modules are to come from {wanted}, and {loaded} was loaded")
    if "SSL_CERT_FILE" not in os.environ:
        authority = tempfile.NamedTemporaryFile(prefix="agw-tests-", suffix=".pem")  # noqa: SIM115 - closed at the end
        config.add_cleanup(authority.close)
        trustme.CA().cert_pem.write_to_path(authority.name)
        os.environ["SSL_CERT_FILE"] = authority.name


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give the loops that an async test runs on."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.get_closest_marker("both_loops") is not None:
        factories["asyncio"] = asyncio.new_event_loop
    return factories


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the profile count for property tests that pin their number of examples, too; and a time-out for async tests.

    The usual time-out raises in a signal's handler. uvloop logs that and goes on waiting, so a thread ends the process.
    """
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "function", None)) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(method="thread"))
    functions = {id(test): test for test in (getattr(item, "function", None) for item in items) if test is not None}
    for test in functions.values():
        pinned = getattr(test, PINNED, None)
        if pinned is None or pinned.max_examples == settings().max_examples:
            continue
        scaled = max(10, int(pinned.max_examples * FACTORS[PROFILE]))
        setattr(test, PINNED, settings(pinned, max_examples=scaled))
