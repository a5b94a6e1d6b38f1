"""What a fault is: a promise, what goes wrong, and what everyone must see."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from tests.support.fake_openai import ANSWER
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
Needs = Callable[[str, Mapping[str, str]], "Part"]
"""A row's own part of the configuration, made of its own name and of the URLs of all upstreams by name."""
LANES: tuple[Lane, ...] = ("fast", "full")
KINDS: tuple[Kind, ...] = ("json", "sse")
WORKERS = (1, 2)


@dataclass(frozen=True)
class Part:
    """Upstreams and virtual models that a gateway's configuration has for one row, so that no row shares a state."""

    upstreams: tuple[Tree, ...] = ()
    models: tuple[Tree, ...] = ()


@dataclass(frozen=True)
class Play:
    """A scene that is being played: what its surroundings may use. ``model``: what is asked for."""

    gateway: Gateway
    upstream: Upstream
    spare: Upstream
    workers: int
    model: str
    streamed: bool


Around = Callable[[Play], AbstractContextManager[None]]
"""What goes on around the request of a scene: entered before it, left when all has been judged; its own requests are
told by their request ids, and count for nobody."""


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
    sent: tuple[tuple[str, str], ...] = ()
    """Headers added to the request."""
    text: str = ANSWER
    """What a whole answer says."""
    status: int = 200
    code: str = ""
    """Of the error that the client gets before the first byte; of a broken stream, where it is not empty."""
    attempts: int = 1
    """Requests that reach the first upstream."""
    spare: int = 0
    """Requests that reach the second one."""
    outcome: str = "ok"
    free: bool = False
    """It is turned away before it has cost anything."""
    begun: bool = False
    """A client that leaves has had something of its answer."""
    heavy: bool = False
    """More of an answer passes than was reserved for."""
    cut: bool = False
    """The upstream's request is ended by the gateway while the upstream is still at it."""
    headers: tuple[tuple[str, str], ...] = ()
    """What the client's answer must say, where it has a status: (name, value); an empty value: the name is absent."""
    times: int = 1
    """Requests one after the other; ``attempts`` counts those of the last."""
    earlier: "Scene | None" = None
    """How all but the last of ``times`` end; None: whole."""
    client: Prank | None = None
    before: int = 0
    """Requests that the earlier ones of ``times`` make at the first upstream."""
    around: Around | None = None


@dataclass(frozen=True)
class Fault:
    """A row of the table. ``guard``: where in the code the promise is kept; ``needs``: what it has configured."""

    name: str
    promise: str
    guard: str
    json: Scene | None = None
    sse: Scene | None = None
    needs: Needs | None = None

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
