"""Access tokens of Google's: by a file or the default credentials, and when the next one is due."""

import time
from pathlib import Path

import pytest

from agw_proxy.errors import UpstreamRefused, UpstreamUnreachable
from agw_proxy.upstreams.vertex_tokens import Tokens
from tests.support.google import TokenEndpoint
from tests.support.upstream import Upstream, unreachable


@pytest.fixture(scope="module")
def account() -> TokenEndpoint:
    return TokenEndpoint()


async def test_the_default_credentials_are_those_of_the_environment(
    account: TokenEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "account.json"
    with Upstream(account) as endpoint:
        file.write_bytes(account.account(f"{endpoint.url}/token"))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        tokens = Tokens("vertex", None)
        assert await tokens.get() == await tokens.get() == account.issued[-1]
        await tokens.close()


@pytest.mark.parametrize("seconds", [3600, 60])
def test_the_next_one_is_due_before_the_end(account: TokenEndpoint, tmp_path: Path, seconds: int) -> None:
    file = tmp_path / "account.json"
    account.seconds = seconds
    with Upstream(account) as endpoint:
        file.write_bytes(account.account(f"{endpoint.url}/token"))
        before = time.time()
        grant = Tokens("vertex", file)._fetch()
    assert before < grant.renew_at < grant.ends_at < time.time() + seconds


def test_an_endpoint_that_cannot_be_reached_may_be_tried_again(account: TokenEndpoint, tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    with unreachable() as url:
        file.write_bytes(account.account(f"{url}/token"))
        with pytest.raises(UpstreamUnreachable, match="No access token from Google"):
            Tokens("vertex", file)._fetch()


def test_a_file_that_holds_none_is_told_without_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    file.write_text('{"type": "a-secret-kind"}')
    with pytest.raises(UpstreamRefused) as raised:
        Tokens("vertex", file)._fetch()
    assert "neither a service account's file nor a user's" in raised.value.message
    assert "a-secret" not in raised.value.message
    file.write_text('{"type": "authorized_user", "refresh_token": "a-secret"}')
    with pytest.raises(UpstreamRefused) as raised:
        Tokens("vertex", file)._fetch()
    assert "Check google.credentials" in raised.value.message
    assert "a-secret" not in raised.value.message
