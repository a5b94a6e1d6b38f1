"""Runs in the background, as they are asked for: ``/runs``, and Responses with ``background`` (docs/runs.md).

Whose they are: the key's that began them, or its team's; an admin key has those of all at ``/runs``.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from agw_proxy.api.endpoint import RunPart
from agw_proxy.api.runs import Row, Tree, asked_for, number_of, page_of, run_tree, seed_of, wanted_of
from agw_proxy.api.stored_responses import not_kept
from agw_proxy.config.storage import Runs as Settings
from agw_proxy.config.values import AGENTS
from agw_proxy.edge.background import BegunBefore, Desk, written
from agw_proxy.edge.behind import Later, Serve
from agw_proxy.edge.body import Bodies, check_json
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.following import Following
from agw_proxy.edge.reading import fields_of, look_into
from agw_proxy.edge.respond import common_headers
from agw_proxy.edge.state import State
from agw_proxy.edge.storing import Storing
from agw_proxy.errors import (
    CallerError,
    InvalidJSON,
    InvalidParameter,
    KeyMissing,
    ModelNotFound,
    NotKept,
    StoreUnavailable,
)
from agw_proxy.policy.routes import shown
from agw_proxy.store.responses_file import Missing, StoreAway
from agw_proxy.store.runs import Listed
from agw_proxy.store.runs import Runs as Store
from agw_proxy.types import Principal

LOOK_SECONDS = 0.1  # between two looks whether a run has ended that another worker is to cancel
CANCEL_SECONDS = 5.0  # for a run to end that is cancelled; then it is shown as it is
SHARE = 16  # of the file, that one run may have in events: with its Response, the file takes that much at once


class Runs:
    """Of one worker."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """``path``: of the file for all workers."""
        store = Store(path, settings.max_mb << 20, settings.retention, written)
        most = min(settings.max_run_mb << 20, (settings.max_mb << 20) // SHARE)
        self._desk = Desk(store, settings.concurrent, most)
        self._store = store

    async def close(self) -> None:
        """Write down how all have ended."""
        await self._desk.close()

    # -- /runs

    async def create(
        self, serve: Serve, exchange: Exchange, request: web.BaseRequest, state: State, bodies: Bodies
    ) -> web.StreamResponse:
        """``POST /runs``. Raises CallerError, StoreUnavailable, and what refuses the run."""
        principal = _principal(exchange)
        if exchange.within is not None:
            raise CallerError("An agent's run does not begin others: ask, and wait for the answer.")
        check_json(request)
        body = await bodies.read(request, exchange)
        try:
            look_into(body, state.settings.server.json_depth)
            tree, agent = asked_for(_object(body), state.settings.agents.namespace)
            if agent:
                _check_agent(state, principal, str(tree["model"]))
            row = await self._begin(serve, exchange, request, principal, tree)
        finally:
            bodies.free(len(body))
        response = _json(exchange, run_tree(row, whole=True), 202)
        response.headers["Location"] = f"/runs/run_{row.seed}"
        return response

    async def serve(
        self,
        exchange: Exchange,
        request: web.BaseRequest,
        state: State,
        part: RunPart,
        values: Mapping[str, str],
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        """What is asked of runs that are there. Raises NotKept, InvalidParameter, StoreUnavailable."""
        principal = _principal(exchange)
        owner = None if principal.admin else principal.owner
        if part == "list":
            return await self._list(exchange, owner, query)
        identity = values["id"]
        seed = seed_of(identity, "run")
        if seed is None:
            raise not_kept(shown(identity), "Run")
        with _told(identity, "Run"):
            row = Row(*await self._store.find(owner, seed))
            if part == "events":
                after = number_of(request.headers.get("Last-Event-ID") or query.get("starting_after"), "starting_after")
                if after >= row.last and not row.active:
                    return _nothing_more(exchange)
                return self._following(exchange, request, state, seed, after)
            if part in {"cancel", "delete"}:
                row = await self._cancel(row)
            if part == "delete":
                await self._store.forget(owner, seed)
                return _json(exchange, {"id": identity, "object": "run", "deleted": True})
        return _json(exchange, run_tree(row, whole=True))

    async def _list(self, exchange: Exchange, owner: str | None, query: Mapping[str, str]) -> web.StreamResponse:
        try:
            rows, more = await self._store.page(owner, Listed(*wanted_of(query)))
        except Missing:
            raise InvalidParameter(f"'after' names no run: '{query.get('after')}'.", param="after") from None
        except StoreAway:
            raise away() from None
        return _answer(exchange, page_of([Row(*row) for row in rows], more=more))

    # -- /v1/responses

    async def begun(
        self,
        serve: Serve,
        exchange: Exchange,
        request: web.BaseRequest,
        state: State,
        body: bytes,
        model: str | None,
    ) -> web.StreamResponse | None:
        """Begin what a request to Responses wants in the background; None: it does not, or an upstream does that itself.

        Raises InvalidParameter, StoreUnavailable, and what refuses the run.
        """
        tree, principal = _object(body), _principal(exchange)
        if tree.get("background") is not True or _elsewhere(state, principal, model):
            return None
        if tree.get("store") is False:
            raise InvalidParameter(
                "What is answered in the background is kept, to be asked for: leave out 'store: false'.", param="store"
            )
        stream = tree.pop("stream", False) is True
        del tree["background"]
        row = await self._begin(serve, exchange, request, principal, tree)
        if stream:
            return self._following(exchange, request, state, row.seed, -1)
        return _json(exchange, orjson.loads(row.head))

    async def answered(
        self,
        storing: Storing,
        exchange: Exchange,
        request: web.BaseRequest,
        state: State,
        path: str,
        query: str,
        seed: str,
        part: str,
    ) -> web.StreamResponse | None:
        """What is asked of a run's Response; None: the store of Responses may have it.

        ``part``: ``get``, ``delete``, ``cancel`` or ``input_items``. Raises NotKept, InvalidParameter, StoreUnavailable.
        """
        owner, identity = _principal(exchange).owner, f"resp_{seed}"
        kept = state.settings.store is not None and state.settings.store.keeps
        if kept and part == "input_items":
            return None
        try:
            with _told(identity, "Response"):
                row = Row(*await self._store.find(owner, seed))
        except NotKept:
            if kept:
                return None
            raise
        fields = fields_of(query)
        if part == "input_items":
            raise NotKept("What a response was asked with is kept where the gateway has a store for Responses (store).")
        if part == "get" and fields.get("stream", "").lower() in {"true", "1"}:
            after = number_of(fields.get("starting_after") or request.headers.get("Last-Event-ID"), "starting_after")
            return self._following(exchange, request, state, seed, after)
        with _told(identity, "Response"):
            if part != "get":
                row = await self._cancel(row)
            if part != "delete":
                return _json(exchange, orjson.loads(row.head))
            await self._store.forget(owner, seed)
        if kept:
            with contextlib.suppress(NotKept):
                await storing.forget(exchange, request, state, path, query)
        return _json(exchange, {"id": identity, "object": "response", "deleted": True})

    # -- both

    async def _begin(
        self, serve: Serve, exchange: Exchange, request: web.BaseRequest, principal: Principal, tree: Tree
    ) -> Row:
        """The run, or the one that the same request has begun before. Raises what ``Desk.begin`` does, and NotKept."""
        try:
            live = await self._desk.begin(serve, request, principal, tree)
        except BegunBefore as before:
            exchange.notes.append(("idempotent-replayed", "true"))
            with _told(f"run_{before.seed}", "Run"):
                return Row(*await self._store.find(principal.owner, before.seed))
        return live.row(self._store.holder)

    def _following(self, exchange: Exchange, request: web.BaseRequest, state: State, seed: str, after: int) -> Later:
        return Following(self._desk, exchange, request, seed, after, state.settings.server)

    async def _cancel(self, row: Row) -> Row:
        """The run once it has ended, or as it is where that takes long. Raises Missing, StoreAway."""
        if not row.active:
            return row
        live = self._desk.live(row.seed)
        if live is not None:
            self._desk.cancel(live)
        else:
            await self._store.wish(row.seed)
        loop = asyncio.get_running_loop()
        until = loop.time() + CANCEL_SECONDS
        while row.active and loop.time() < until:
            await asyncio.sleep(LOOK_SECONDS)
            row = Row(*await self._store.find(None, row.seed))
        return row


def away() -> StoreUnavailable:
    """What to raise where the file does not answer."""
    return StoreUnavailable("Runs cannot be read or written now. Try again.", retry_after_ms=1000)


@contextmanager
def _told(identity: str, noun: str) -> Iterator[None]:
    """Raises NotKept and StoreUnavailable for what the store raises."""
    try:
        yield
    except Missing:
        raise not_kept(shown(identity), noun) from None
    except StoreAway:
        raise away() from None


def _elsewhere(state: State, principal: Principal, model: str | None) -> bool:
    """All that may answer speak Responses themselves, and keep them: the background is theirs. Also where none is found: the router says so."""
    if model is None:
        return True
    try:
        route = state.routes.find(model, principal)
    except CallerError:
        return True
    targets = (*route.targets, *route.fallbacks)
    services = [(target.upstream, state.services[target.upstream]) for target in targets]
    configured = len(state.settings.upstreams)  # what is in this process keeps nothing
    return all(at < configured and "responses" in each.speaks and each.keeps for at, each in services)


def _check_agent(state: State, principal: Principal, model: str) -> None:
    """Raises ModelNotFound for what is no agent, and what the router does."""
    route = state.routes.find(model, principal)
    if any(state.services[target.upstream].upstream.name != AGENTS for target in route.targets):
        raise ModelNotFound(f"'{shown(model)}' is a model, and no agent: ask for it as 'model'.", param="agent")


def _principal(exchange: Exchange) -> Principal:
    if exchange.principal is None:
        raise KeyMissing("This endpoint needs a key.")
    return exchange.principal


def _object(body: bytes) -> Tree:
    """Raises InvalidJSON, also for what a look into it lets pass: half of a surrogate pair."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error}.") from None
    if not isinstance(tree, dict):
        raise InvalidJSON("The body is not a JSON object.")
    return tree


def _nothing_more(exchange: Exchange) -> web.Response:
    """On a 204 a browser's reader does not come again (HTML Living Standard, server-sent events, section 9.2.3)."""
    exchange.status, exchange.complete = 204, True
    return web.Response(status=204, headers=common_headers(exchange))


def _json(exchange: Exchange, tree: Mapping[str, Any], status: int = 200) -> web.Response:
    return _answer(exchange, orjson.dumps(tree), status)


def _answer(exchange: Exchange, body: bytes, status: int = 200) -> web.Response:
    exchange.status, exchange.complete, exchange.bytes_out = status, True, len(body)
    headers = common_headers(exchange)
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")
