"""Bedrock's errors by their names, wherever it says them; whoever asks is never shown."""

import pytest

from agw_proxy.upstreams.bedrock_faults import fault_of

ROLE = "arn:aws:sts::123456789012:assumed-role/Ops/me"


@pytest.mark.parametrize(
    ("code", "body", "status", "message"),
    [
        ("ThrottlingException:http://internal.amazon.com/", b'{"message":"slow"}', 429, "ThrottlingException: slow"),
        ("", b'{"__type":"com.amazon.coral#ValidationException","Message":"m"}', 400, "ValidationException: m"),
        ("modelTimeoutException", b"", 504, "modelTimeoutException"),
        ("SomethingNew", b'{"message":"m"}', 418, "SomethingNew: m"),
        ("", b"<html>", 418, "The model cannot be used."),
        ("", b'["m"]', 418, "Bedrock failed."),
        ("ExpiredTokenException", b'{"message":"token xyz"}', 401, "ExpiredTokenException"),
        (
            "AccessDeniedException",
            f'{{"message":"User: {ROLE} may not: arn:aws:bedrock:us-east-1:123456789012:x/y"}}'.encode(),
            403,
            "AccessDeniedException: User: the gateway's identity may not: arn:aws:bedrock:us-east-1:***:x/y",
        ),
    ],
)
def test_a_fault_has_the_status_that_its_name_means(code: str, body: bytes, status: int, message: str) -> None:
    found = fault_of(code, body, status=418)
    assert (found.status, found.message) == (status, message)
