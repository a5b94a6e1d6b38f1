"""How a run has failed, as its caller is told."""

import httpx2
import openai
import pytest
from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError, ModelTimeoutError, UserError

from agw_proxy.dialects.base import Fault
from agw_proxy.errors import BudgetSpent, GatewayError, UpstreamUnavailable
from agw_proxy.sdk.entry import Unconnected
from agw_proxy.sdk.faults import TokensSpent, error_of, is_bound

REQUEST = httpx2.Request("POST", "http://model")


@pytest.mark.parametrize(
    ("failure", "fault", "code", "status"),
    [
        (MaxTurnsExceeded("10"), None, "upstream_agent_spent", 500),
        (TokensSpent("9 of 8"), None, "upstream_agent_spent", 500),
        (ModelTimeoutError(3.0), None, "upstream_agent_timeout", 504),
        (openai.APITimeoutError(REQUEST), None, "upstream_agent_timeout", 504),
        (openai.APIConnectionError(request=REQUEST), None, "upstream_agent_call_failed", 502),
        (openai.APIError("odd", REQUEST, body=None), None, "upstream_agent_call_failed", 502),
        (ModelBehaviorError("x"), None, "upstream_agent_failed", 500),
        (ModelBehaviorError("x"), Fault("No more.", "", 0), "upstream_agent_call_failed", 502),
        (UserError("x"), None, "upstream_agent_failed", 500),
        (Unconnected("MCP server 'x' cannot be reached"), None, "upstream_agent_call_failed", 502),
    ],
)
def test_failures_have_their_codes(failure: Exception, fault: Fault | None, code: str, status: int) -> None:
    error = error_of(failure, fault)
    assert (error.code, error.status) == (code, status)
    assert not error.retryable
    assert error.blameless


@pytest.mark.parametrize("chained", [True, False])
def test_an_error_of_the_gateways_own_is_found_behind_a_clients(chained: bool) -> None:
    """A policy's word is passed on as it is; a failure upstream is the model call's."""

    def behind(inner: GatewayError) -> GatewayError:
        outer = openai.APIConnectionError(request=REQUEST)
        if chained:
            outer.__cause__ = inner
        outer.__context__ = inner
        return error_of(outer, None)

    spent = BudgetSpent("Spent.", rule="r", retry_after_ms=None)
    assert behind(spent) is spent
    failed = behind(UpstreamUnavailable("Down.", retry_after_ms=700))
    assert (failed.code, failed.status, failed.retry_after_ms) == ("upstream_agent_call_failed", 503, 700)


def test_a_chain_that_never_ends_is_left() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert error_of(one, None).code == "upstream_agent_failed"


def test_bounds_are_no_failures_of_their_own() -> None:
    assert is_bound(MaxTurnsExceeded("10"))
    assert not is_bound(UserError("x"))
