"""Credentials for AWS: found off the loop, told by their error's name alone where there are none."""

import time
from pathlib import Path

import pytest

from agw_proxy.errors import UpstreamRefused, UpstreamUnreachable
from agw_proxy.upstreams.bedrock_signing import ASIDE_BYTES, Signer
from tests.support import aws

URL = "http://127.0.0.1:1/model/a%3A0/invoke"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing of this machine's own is found."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


async def signed(signer: Signer, body: bytes = b"{}") -> dict[str, str]:
    headers = [("content-type", "application/json"), ("x-request-id", "r"), ("X-Amzn-Bedrock-Trace", "ENABLED")]
    return dict(await signer.signed("POST", URL, headers, body))


async def test_credentials_come_from_a_profile_and_are_kept(alone: Path) -> None:
    (alone / "credentials").write_text("[ops]\naws_access_key_id = AKIDOPS\naws_secret_access_key = s3cr3t\n")
    signer = Signer("bedrock", aws.REGION, "ops")
    found = await signed(signer)
    assert "Credential=AKIDOPS/" in found["Authorization"]
    assert "content-type;host;x-amz-date;x-amzn-bedrock-trace" in found["Authorization"]
    assert (found["x-request-id"], found["X-Amzn-Bedrock-Trace"]) == ("r", "ENABLED")
    (alone / "credentials").unlink()
    long = await signed(signer, b"x" * (ASIDE_BYTES + 1))
    assert long["Authorization"] != found["Authorization"]
    await signer.close()


async def test_refused_credentials_are_looked_for_again(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOLD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    signer = Signer("bedrock", aws.REGION, None)
    await signed(signer)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
    now = time.time()
    monkeypatch.setattr(signer._granted, "_clock", lambda: now + 30)
    signer.refused()
    assert "Credential=AKIDNEW/" in (await signed(signer))["Authorization"]


async def test_where_there_are_none_that_is_said_with_what_to_do() -> None:
    with pytest.raises(UpstreamRefused, match="no AWS credentials: give it an api_key"):
        await signed(Signer("bedrock", aws.REGION, None))


async def test_an_error_of_the_library_is_told_by_its_name(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer("bedrock", aws.REGION, None)

    def unreadable() -> None:
        raise PermissionError("/home/ops/.aws quotes a-secret")

    monkeypatch.setattr(signer, "_found", unreadable)
    with pytest.raises(UpstreamUnreachable, match=r"now \(PermissionError\)\.$"):
        await signed(signer)
