"""What a fault is: a promise, what goes wrong, and what everyone must see."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from tests.support.gateway import Gateway, Tree
from tests.support.upstream import Behaviour, Upstream

Api = Literal["chat", "responses", "messages"]
Lane = Literal["fast", "full"]
Kind = Literal["json", "sse"]
Ends = Literal["whole", "refused", "broken", "left"]
"""How it ends for the client: it has the whole answer; a status and no answer; an exception after some of an answer;
it was gone before."""
Prank = Callable[[Gateway, Upstream, Tree, dict[str, str]], float]
"""A client that misbehaves: sends the body with the headers and leaves; gives when it left (``time.monotonic``)."""
LANES: tuple[Lane, ...] = ("fast", "full")
KINDS: tuple[Kind, ...] = ("json", "sse")
WORKERS = (1, 2)


@dataclass(frozen=True)
class Scene:
    """One conversation.

    The first answers of the upstream are ``script``; all others are ``always``, or what a well upstream says.
    """

    ends: Ends
    script: tuple[Behaviour, ...] = ()
    always: Behaviour | None = None
    api: Api = "chat"
    model: str = "gpt-{}"
    """What is asked for; ``{}`` is the fault's own part, so that no fault shares a breaker with another."""
    extra: Tree = field(default_factory=dict)
    """Members added to the request."""
    status: int = 200
    code: str = ""
    """Of the error that the client gets before the first byte; of a broken stream, where it is not empty."""
    attempts: int = 1
    """Requests that reach the first upstream."""
    spare: int = 0
    """Requests that reach the second one."""
    outcome: str = "ok"
    cut: bool = False
    """The upstream's request is ended by the gateway while the upstream is still at it."""
    headers: tuple[tuple[str, str], ...] = ()
    """What the client's answer must say, where there is a status: (name, value); an empty value: the name is absent."""
    times: int = 1
    """Requests one after the other; all but the last must be whole. ``attempts`` counts those of the last."""
    client: Prank | None = None
    before: int = 0
    """Requests that the earlier ones of ``times`` make at the first upstream."""


@dataclass(frozen=True)
class Fault:
    """A row of the table. ``guard``: where in the code the promise is kept."""

    name: str
    promise: str
    guard: str
    json: Scene | None = None
    sse: Scene | None = None

    def scene(self, kind: Kind) -> Scene | None:
        """The scene of a plain answer or of a stream."""
        return self.json if kind == "json" else self.sse


class Scenes(TypedDict):
    """Of both kinds, for ``Fault(..., **both(...))``."""

    json: Scene
    sse: Scene


def both(scene: Scene, **streamed: object) -> Scenes:
    """The same for a plain answer and for a stream, but for ``streamed``."""
    return {"json": scene, "sse": replace(scene, **streamed)}  # type: ignore[arg-type]  # fields of Scene
