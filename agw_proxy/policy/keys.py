"""Keys -> principals: the compiled key table with what each key may do."""

from collections.abc import Sequence

from agw_proxy._hot.keys import Credential, DuplicateCredential, KeyTable, credential, digest
from agw_proxy._hot.limit import Table, subject
from agw_proxy._hot.route import Globs
from agw_proxy.config.settings import Key
from agw_proxy.errors import CallerError, KeyInvalid, KeyMissing
from agw_proxy.policy.budgets import Common, allowance
from agw_proxy.types import Principal, RawHeaders


class Keys:
    """An immutable set of principals, found by the key that a request carries."""

    def __init__(self, keys: Sequence[Key], common: Common, table: Table) -> None:
        """``common``: what holds for them besides their own limits. Raises ValueError for rules that cannot be."""
        self.principals = tuple(_principal(key, common, table) for key in keys)
        self.table = KeyTable((_digest(key), index) for index, key in enumerate(keys))

    def authenticate(self, headers: RawHeaders) -> tuple[Principal, Credential]:
        """The principal of a request and the credential it came by.

        Raises KeyMissing, KeyInvalid (the same answer for unknown and disabled), CallerError for a repeated header.
        """
        try:
            sent = credential(headers)
        except DuplicateCredential as error:
            raise CallerError(f"The header {error.header} came more than once; send one key.") from None
        if sent is None:
            raise KeyMissing(
                "No API key came with the request. Send the gateway's key as 'Authorization: Bearer <key>' "
                "(or in x-api-key, api-key, x-goog-api-key or x-agw-key)."
            )
        index = self.table.find(sent.value)
        if index < 0:
            raise KeyInvalid(
                f"The API key in the header {sent.header} is not known to this gateway. "
                "Use a key from its configuration; a provider's own key belongs into the gateway's upstreams."
            )
        return self.principals[index], sent

    def named(self, name: str) -> Principal:
        """The principal of a key's name. Raises CallerError."""
        for principal in self.principals:
            if principal.name == name:
                return principal
        raise CallerError(f"There is no key '{name}' in the configuration.", param="key")

    def knows(self, value: bytes) -> bool:
        """Whether it is a key of the gateway's own."""
        return self.table.find(value) >= 0


def _digest(key: Key) -> bytes:
    if key.key is not None:
        return digest(key.key.get_secret_value().encode())
    return bytes.fromhex(key.key_sha256 or "")


def _principal(key: Key, common: Common, table: Table) -> Principal:
    may = allowance(key, common, table)
    return Principal(
        name=key.name,
        subject=subject(b"key:" + key.name.encode()),
        models=Globs(key.models),
        tools=Globs(key.tools),
        admin=key.admin,
        limits=may.limits,
        fallbacks=key.fallbacks,
        team=key.team,
        team_subject=subject(b"team:" + key.team.encode()) if key.team is not None else 0,
        budgets=may.budgets,
        derive=may.derive,
        needs_price=may.needs_price,
        finishes=may.finishes,
    )
