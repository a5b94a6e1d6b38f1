"""Reserve, then settle: what a request may need of tokens and money, and what it came to. Both lanes count here."""

from typing import Protocol

from agw_proxy._hot.limit import Grant, Rule
from agw_proxy._hot.money import Tariff
from agw_proxy._hot.tokens import Learner

# How an exchange has ended, for whoever pays for it.
SERVED: int
"""The answer is whole."""
PARTED: int
"""The caller has gone, or the answer broke off: paid is the prompt, and what came through of the answer."""
UNSERVED: int
"""There was no answer: nothing is paid, and the request does not count."""
REJECTED: int
"""The upstream has said no to the request: it counts as one, and pays neither tokens nor money."""

class Told(Protocol):
    """Tokens as the upstream has told them; -1 where it has not."""

    @property
    def prompt(self) -> int: ...
    @property
    def completion(self) -> int: ...
    @property
    def cached(self) -> int: ...

class Reserve:
    """What is reserved for one request."""

    def __init__(
        self, raw: int = 0, prompt: int = 0, output: int = 0, cost: int = 0, extra: int = 0, size: int = 0
    ) -> None: ...
    @property
    def raw(self) -> int:
        """Tokens of the prompt, before anything learnt; 0 where the learner knows enough by the size alone."""
    @property
    def size(self) -> int:
        """Bytes of the body."""
    @property
    def prompt(self) -> int: ...
    @property
    def output(self) -> int:
        """Tokens of the answer: what the request allows, or what this target's answers are expected to be."""
    @property
    def extra(self) -> int:
        """Of ``cost``, what the images cost that are asked for (``n``), at an endpoint that answers in no words."""
    @property
    def cost(self) -> int:
        """Micro-dollars in the worst case: the longest answer where the request sets no bound."""
    def settle(
        self,
        grant: Grant,
        how: int,
        learner: Learner | None,
        tariff: Tariff | None,
        usage: Told,
        content: int,
        bytes_out: int,
        now_ns: int,
    ) -> bool:
        """Put the truth in place of this. ``content``: events with content. True the first time only.

        What the upstream tells is learnt from. Where it tells nothing, the answer's tokens are its events with
        content, or a quarter of its bytes, and never more than was reserved.
        """
    def spent(self, how: int, tariff: Tariff | None, usage: Told, content: int, bytes_out: int) -> tuple[int, int, int]:
        """(input tokens, output tokens, micro-dollars) that ``settle`` would charge."""

def estimate(
    body: bytes,
    learner: Learner | None,
    tariff: Tariff | None,
    max_tokens: int,
    choices: int,
    generates: bool,
    steps: bool,
    by_bytes: bool = False,
) -> Reserve:
    """``max_tokens``: -1 where the request sets none. ``generates``: there is an answer in words.

    ``steps``: money only for the answer's first 256 tokens; more is taken as it comes (``Grant.extend``).
    ``by_bytes``: the prompt need not be looked at where bodies of its size were alike (``Learner.by_bytes``); of money,
    which is reserved for the worst case, there should be plenty then.
    """

def crossings(grant: Grant, now_ns: int) -> list[tuple[Rule, float, int, int, tuple[int, ...]]]:
    """Of ``grant.crossed``, after the settlement, what is crossed still: what was only reserved is not.

    (rule, mark, what remains, nanoseconds until it begins anew, the subjects it counts). A rule that has refused what
    it has room for when it is new is at its end: all of its marks are told.
    """
