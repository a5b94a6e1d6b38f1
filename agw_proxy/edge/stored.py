"""Responses that the gateway keeps itself, so that a conversation goes on over whatever upstream (docs/responses.md).

Before the route: what a request goes on from is put back into it. Behind the answer: it is kept. And what is asked for by
its id, and is kept here, is answered from here.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from agw_proxy._hot.peek import Peek
from agw_proxy.api.responses import PATH
from agw_proxy.api.runs import in_background
from agw_proxy.api.stored_responses import NOUNS, About, about, item_of, not_kept, ours, resolved, seed, serve
from agw_proxy.config.settings import Server
from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.openai_responses_kept import portable, sent, taken_apart, with_history
from agw_proxy.edge.affinity import may_ask
from agw_proxy.edge.body import Bodies
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.keeping import Keeping, keep_whole
from agw_proxy.edge.reading import fields_of, look_into
from agw_proxy.edge.state import State
from agw_proxy.errors import BodyTooLarge, GatewayError, InvalidParameter, PreviousNotFound, StoreUnavailable
from agw_proxy.policy.routes import shown
from agw_proxy.store.responses import Item, Past, Responses, Turn
from agw_proxy.store.responses_file import Missing, StoreAway, TooLong
from agw_proxy.types import Principal, Stored
from agw_proxy.upstreams.opening import Opened, content_type

Tree = dict[str, Any]

MAX_DEPTH = 200  # of what is kept, whatever else is accepted: deeper trees can be read here, and not be written


class Counted(Protocol):
    """Who hears of what could not be kept."""

    def dropped(self, what: str, count: int = 1) -> None:
        """``what`` is from a closed set."""
        ...


Forget = Callable[[str, str], Awaitable[None]]


async def answered(
    kept: Responses,
    exchange: Exchange,
    request: web.BaseRequest,
    state: State,
    path: str,
    query: str,
    bodies: Bodies | None,
    forget: Forget,
) -> bytes | None:
    """What is answered from here to a request for something that may be kept; None: an upstream is to be asked.

    ``bodies``: None where no body comes. ``forget``: what agents have done in a conversation of which a part is deleted.
    Raises NotKept for what nobody could have, CallerError, StoreUnavailable.
    """
    principal, asked = exchange.principal, about(request.method, path)
    if principal is None or asked is None:
        return None
    held = 0
    try:
        if asked.id and not await kept.knows(principal.owner, asked.id):
            _check_elsewhere(state, principal, asked)
            return None
        body = b""
        if bodies is not None and asked.method == "POST" and asked.part != "cancel":
            body = await bodies.read(request, exchange)
            held = len(body)
            look_into(body or b"{}", min(state.settings.server.json_depth, MAX_DEPTH))
        root = await kept.root(principal.owner, asked.id) if asked.method == "DELETE" else None
        made = await serve(kept, principal.owner, asked, fields_of(query), body)
        if root is not None:
            await forget(principal.owner, root)
        return made
    except StoreAway:
        raise away() from None
    finally:
        if bodies is not None:
            bodies.free(held)


async def recall(
    kept: Responses,
    exchange: Exchange,
    state: State,
    path: str,
    body: bytes,
    seen: Peek,
    counted: Counted,
    *,
    everything: bool,
) -> "Recalled | None":
    """The request with what it goes on from, and what of its answer is to be kept; None: neither.

    ``everything``: see ``Recalled``. Raises PreviousNotFound and NotKept for what no upstream of the model could know
    either, BodyTooLarge, InvalidJSON, InvalidParameter, StoreUnavailable.
    """
    tree, principal = _object(body), exchange.principal
    if tree is None or principal is None:
        return None
    if exchange.within is not None and "store" not in tree:
        tree = {**tree, "store": False}  # a run's own steps: what it comes to is kept, where its caller wants that
    behind = exchange.behind.seed if exchange.behind is not None else None
    counts = path != PATH
    made = Recalled(kept, principal.owner, tree, counted, everything=everything, counts=counts, behind=behind)
    try:
        _check_depth(body, state.settings.server)
        await made.look(body, seen, state.settings.server)
    except Missing as missing:
        if ours(missing.what) or not any_native(state, principal, seen.model):
            raise made.lost(missing.what) from None
        return None
    except TooLong:
        most = state.settings.server.max_body_mb
        raise BodyTooLarge(
            f"What this request goes on from has more turns than can be put back, or is larger than {most} MiB "
            "(server.max_body_mb): begin anew."
        ) from None
    except Malformed as error:
        raise InvalidParameter(error.message, param=error.param) from None
    except StoreAway:
        raise away() from None
    return made


class Recalled:
    """One request: what it has become, and what is to become of its answer (``keeping.Keeper``)."""

    def __init__(
        self,
        kept: Responses,
        owner: str,
        tree: Tree,
        counted: Counted,
        *,
        everything: bool,
        counts: bool,
        behind: str | None = None,
    ) -> None:
        """``everything``: answers of upstreams are kept that keep them, too. ``counts``: only its tokens are asked for.

        ``behind``: see ``exchange.Behind.seed``.
        """
        self._seed = behind
        self._kept, self._owner, self._counted = kept, owner, counted
        self._everything, self._counts = everything, counts
        self._tree = tree
        self._previous = _id(tree, "previous_response_id")
        self._conversation = _id(tree, "conversation")
        self._lists = tree.get("store") is not False and not counts
        self._appends = False
        self._rebuilt = self._once = False
        self._past = Past()
        self._asked: list[Item] = []
        self._leave: Callable[[], None] | None = None
        self.told: Tree = {}
        self.body = self.original = b""
        """As it goes on, and as it came."""
        self.seen: Peek | None = None
        self.stored = Stored("", {})

    async def look(self, body: bytes, seen: Peek, server: Server) -> None:
        """Find what it refers to, and put it in. Raises Malformed, Missing, TooLong, StoreAway, and what ``look_into`` raises."""
        if self._previous is not None and self._conversation is not None:
            raise Malformed("'previous_response_id' and 'conversation' exclude each other.", "conversation")
        most, depth = server.max_body_mb << 20, server.json_depth
        if self._previous is not None or self._conversation is not None:
            self._past = await self._kept.past(
                self._owner, self._previous, self._conversation, (), max(most - len(body), 0)
            )
        came = sent(self._tree.get("input"))
        own = await resolved(self._kept, self._owner, came, most, strict=False)
        self._rebuilt = bool(self._previous or self._conversation) or own != came
        keeps = self._lists or (self._conversation is not None and not self._counts)
        self._asked = [item_of(tree) for tree in own] if keeps else []
        shows: Tree = {"previous_response_id": self._previous} if self._previous is not None else {}
        shows |= {"conversation": {"id": self._conversation}} if self._conversation is not None else {}
        plain: Callable[[], tuple[bytes, Peek]] | None = None
        self.original, self.body, self.seen = body, body, seen
        if self._rebuilt:
            self.told = {} if self._counts else {**shows, "store": self._lists}
            encoded = [orjson.dumps(tree) for tree in own]
            self.body = with_history(self._tree, self._past.items, encoded)
            if len(self.body) > most:
                raise TooLong
            self.seen = look_into(self.body, depth)
            named = {id(tree) for tree, before in zip(own, came, strict=True) if tree is not before}
            plain = functools.cache(functools.partial(self._plain, own, named, depth))
        new = self._seed or seed()
        thread = (self._past.root or f"resp_{new}") if self._lists or self._conversation is not None else ""
        self.stored = Stored(new, {**shows, "store": self._lists}, plain, thread)

    def _plain(self, own: list[Tree], named: set[int], depth: int) -> tuple[bytes, Peek]:
        """The request for an upstream that speaks Responses and knows nothing of what was kept. ``named``: of ``own``, what was."""
        past = [orjson.dumps(item) for item in portable([orjson.loads(item) for item in self._past.items])]
        trees = [each for tree in own for each in (portable([tree]) if id(tree) in named else [tree])]
        # Kept here, and whole: the upstream need not keep it again. A count knows no such word.
        as_it_is = self._counts or self._tree.get("background") is True
        tree = self._tree if as_it_is else {**self._tree, "store": False}
        body = with_history(tree, past, [orjson.dumps(tree) for tree in trees])
        return body, look_into(body, depth)

    @property
    def keeps(self) -> bool:
        """An answer of its own is kept: nobody else's will do."""
        return self._lists

    def lost(self, what: str) -> GatewayError:
        """What to raise where nobody has what it goes on from."""
        if self._conversation is not None:
            return not_kept(shown(what), "Conversation")
        return PreviousNotFound(f"Previous response with id '{shown(what)}' not found.", param="previous_response_id")

    async def watch(self, exchange: Exchange, opened: Opened, state: State, bodies: Bodies, *, shared: bool) -> None:
        """Have the answer kept on its way, where it is to be. Raises UpstreamError where it breaks before it has begun to go out.

        ``bodies``: count what is held of the request until a stream has ended. ``shared``: others may get the same answer,
        and each of them may be the only one who gets it whole.
        """
        self._once = shared
        service = state.services[opened.target.upstream]
        native = "responses" in service.speaks
        self._lists = self._lists and (not (native and service.keeps) or self._rebuilt or self._everything)
        self._appends = self._conversation is not None and not self._counts
        self.told = self.told if native else {}
        self.body = self.original = b""
        self._tree, self._past = {}, self._past._replace(items=())
        self.stored = Stored("", {})
        self._asked = self._asked if self._lists or self._appends else []
        if exchange.endpoint != "responses" or not (self._lists or self._appends or self.told):
            return
        try:
            if opened.stream is not None:
                await Keeping(opened.reply, self).begin(opened, opened.stream)
                held = sum(len(item.body) for item in self._asked)
                bodies.held += held
                self._leave = functools.partial(bodies.free, held)
            elif content_type(opened.reply) != b"application/json" or opened.reply.status != 200:
                return
            elif not await keep_whole(opened, self):
                opened.dropped = (*opened.dropped, "store")
        except BaseException:
            opened.abandon()
            raise

    def leave(self) -> None:
        """See ``Keeper``."""
        leave, self._leave = self._leave, None
        if leave is not None:
            self._asked = []
            leave()

    async def keep(self, response: Tree) -> bool:
        """See ``Keeper``."""
        told = self.told if self._seed is None else {**self.told, **in_background(self._seed)}
        what = told.get("id", response.get("id"))
        if not isinstance(what, str) or not (self._lists or self._appends):
            return True
        try:
            apart = taken_apart(response, told)
            if apart is None:
                return True
            head, output = apart
            items = [*self._asked, *(item_of(tree, answered=True) for tree in output)]
        except orjson.JSONEncodeError:  # it is nested more deeply than can be written
            self._counted.dropped("response")
            return False
        before = self._previous if self._conversation is None or self._past.upto < 0 else self._conversation
        turn = Turn(what, before, self._past.upto, head, items)
        appends = self._conversation if self._appends else None
        try:
            await self._kept.keep(self._owner, turn, self._past.chain, appends, listed=self._lists, once=self._once)
        except StoreAway:
            self._counted.dropped("response")
            return False
        return True


def any_native(state: State, principal: Principal, model: str | None) -> bool:
    """An upstream of the model speaks Responses itself, and may know what is not kept here. A model that is none is the router's to refuse."""
    if model is None:
        return True
    try:
        route = state.routes.find(model, principal)
    except GatewayError:
        return True
    services = [state.services[target.upstream] for target in (*route.targets, *route.fallbacks)]
    return any("responses" in service.speaks and service.keeps for service in services)


def away() -> StoreUnavailable:
    """What to raise where the store does not answer."""
    return StoreUnavailable("What is kept for Responses cannot be read or written now. Try again.", retry_after_ms=1000)


def _check_elsewhere(state: State, principal: Principal, asked: About) -> None:
    """Not kept here: an upstream may have it that speaks Responses, and that the key may use all of. Raises NotKept."""
    for service, upstream in () if ours(asked.id) else state.pairs():
        if "responses" in service.speaks and may_ask(state, upstream.name, principal):
            return
    raise not_kept(shown(asked.id), NOUNS[asked.kind])


def _check_depth(body: bytes, server: Server) -> None:
    """Raises InvalidJSON for what could not be written again."""
    if server.json_depth > MAX_DEPTH:
        look_into(body, MAX_DEPTH)


def _id(tree: Tree, name: str) -> str | None:
    found = tree.get(name)
    if isinstance(found, dict):
        found = found.get("id")
    return found if isinstance(found, str) and found else None


def _object(body: bytes) -> Tree | None:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None
