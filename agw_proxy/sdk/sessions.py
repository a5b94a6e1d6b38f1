"""A conversation as the SDK's own sessions have it, over what is kept of it."""

from typing import Any

from agents import TResponseInputItem
from agents.memory import SessionABC, SessionSettings

from agw_proxy.sdk.turns import Talk


class Memory(SessionABC):
    """The SDK's ``Session`` of one run. What the run adds to it is kept when the run has ended well, and all at once.

    So a run that fails, or is cancelled, leaves nothing half done behind, and what the SDK takes back of a model call that
    is tried again was never kept.
    """

    session_settings: SessionSettings | None = None

    def __init__(self, session_id: str, talk: Talk) -> None:
        """``session_id``: what it is called, for the SDK's log."""
        self.session_id = session_id
        past: Any = talk.past  # trees of the SDK's form
        self._items: list[TResponseInputItem] = list(past)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """See the SDK."""
        return list(self._items) if limit is None else self._items[-limit:] if limit > 0 else []

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """See the SDK."""
        self._items += items

    async def pop_item(self) -> TResponseInputItem | None:
        """See the SDK."""
        return self._items.pop() if self._items else None

    async def clear_session(self) -> None:
        """See the SDK."""
        self._items.clear()
