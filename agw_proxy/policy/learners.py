"""What targets' answers have taught about tokens, kept over reloads."""

from agw_proxy._hot.tokens import Learner

MAX_KEPT = 4096  # targets; a key for a whole upstream may name any model there


class Learners:
    """One Learner a target, found by the upstream's name and the model's there. Of this process alone."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Learner] = {}

    def of(self, upstream: str, model: str) -> Learner:
        """The one there is, or a new one that knows nothing."""
        found = self._known.get((upstream, model))
        if found is None:
            if len(self._known) >= MAX_KEPT:
                self._known.clear()
            found = self._known[upstream, model] = Learner()
        return found
