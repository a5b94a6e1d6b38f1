"""Rules between values: names that must exist or differ, forms that exclude each other, what may listen without keys.

They look at the tree rather than at the settings, so that they are reported together with the errors of single fields.
A value of a wrong type is passed over here: the settings complain about it.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from agw_proxy.config.allowances import limit_conflict
from agw_proxy.config.environment import nearest
from agw_proxy.config.settings import KEY_FORMS
from agw_proxy.config.tree import Node, Problem, locate, problem
from agw_proxy.config.tree import Path as TreePath
from agw_proxy.config.values import MAX_WORKERS, RESERVED, is_public, only_one, processors

ECHO = ("agw", "echo")
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Compile shell-style patterns as the routes read them: ``*`` and ``?``, no classes."""
    parts = [
        "".join({"*": ".*", "?": "."}.get(c) or re.escape(c) for c in re.sub(r"\*+", "*", pattern))
        for pattern in patterns
    ]
    expression = re.compile("|".join(parts), re.DOTALL) if parts else None
    return lambda name: expression is not None and expression.fullmatch(name) is not None


def _patterns(upstreams: Sequence[Node]) -> list[str]:
    found: list[str] = []
    for upstream in upstreams:
        listed = upstream.get("models")
        found += (
            ["*"]
            if listed is None
            else [item.value for item in upstream.items("models") if isinstance(item.value, str)]
        )
    return found


def _names(items: Iterable[Node]) -> set[str]:
    return {name for item in items if (name := item.text("name")) is not None}


def target_upstream(target: Node) -> str | None:
    """Give the upstream that a target names, in either form."""
    if isinstance(target.value, str):
        upstream, slash, _ = target.value.partition("/")
        return upstream if slash else None
    return target.text("upstream")


def target_model(target: Node) -> str | None:
    """Give the model that a target names, in either form."""
    return target.value.partition("/")[2] if isinstance(target.value, str) else target.text("model")


class _Reach:
    """Which model names lead somewhere: virtual, ``upstream/model``, or matched by an upstream's patterns."""

    def __init__(self, upstreams: Sequence[Node], virtual: set[str]) -> None:
        self.named = _names(upstreams)
        self.upstreams = self.named | RESERVED.keys()
        self.virtual = virtual
        self.served = _matcher(_patterns(upstreams))

    def finds(self, name: str) -> bool:
        upstream, slash, model = name.partition("/")
        return name in self.virtual or bool(slash and model and upstream in self.upstreams) or self.served(name)


def prune(root: Node, left_out: Sequence[Node]) -> list[str]:
    """Take what led only to left-out upstreams out of the models, in place; give a note for each."""
    if not left_out:
        return []
    gone = _names(left_out) - _names(root.items("upstreams"))
    models = root.get("models")
    if models is None or not isinstance(models.value, list):
        return []
    notes = []
    kept = []
    for model in models.value:
        targets = model.get("targets")
        if targets is not None and isinstance(targets.value, list) and targets.value:
            staying = [target for target in targets.value if target_upstream(target) not in gone]
            if not staying:
                notes.append(f"the model {model.text('name')} is left out: all its targets are on left-out upstreams")
                continue
            if len(staying) < len(targets.value):
                notes.append(f"the model {model.text('name')} goes without its targets on left-out upstreams")
                targets.value = staying
        kept.append(model)
    before = _Reach([*root.items("upstreams"), *left_out], _names(models.value))
    models.value = kept
    after = _Reach(root.items("upstreams"), _names(kept))
    for model in kept:
        fallbacks = model.get("fallbacks")
        if fallbacks is not None and isinstance(fallbacks.value, list):
            fallbacks.value = [item for item in fallbacks.value if not _lost(item, before, after)]
    return notes


def _lost(item: Node, before: _Reach, after: _Reach) -> bool:
    return isinstance(item.value, str) and before.finds(item.value) and not after.finds(item.value)


def check(root: Node) -> list[Problem]:
    """Give every problem between the values of the merged tree with its references filled in."""
    found: list[tuple[TreePath, str]] = []
    for section in ("upstreams", "models", "keys", "teams", "tools"):
        found += _duplicates(root, section)
    found += _agents(root)
    found += _upstreams(root)
    found += _models(root)
    found += _keys(root)
    found += _teams(root)
    found += _cache(root)
    for path, limit in _limits(root):
        wrong = limit_conflict(_given(limit))
        if wrong and isinstance(limit.value, dict):
            found.append((path, wrong))
    found += _exposure(root)
    problems = []
    for path, message in found:
        node, label = locate(root, path)
        problems.append(problem(message, label, node.origin))
    return problems


def _given(node: Node) -> set[str]:
    return (
        {key for key, item in node.value.items() if item.value is not None} if isinstance(node.value, dict) else set()
    )


def _duplicates(root: Node, section: str) -> list[tuple[TreePath, str]]:
    seen: dict[str, Node] = {}
    found: list[tuple[TreePath, str]] = []
    for index, item in enumerate(root.items(section)):
        name = item.text("name")
        if name is not None and name in seen:
            found.append(((section, index, "name"), f"the name {name!r} is taken already, at {seen[name].origin}"))
        elif name is not None:
            seen[name] = item
    return found


def _upstreams(root: Node) -> list[tuple[TreePath, str]]:
    found: list[tuple[TreePath, str]] = []
    for index, item in enumerate(root.items("upstreams")):
        if item.text("api_key") and item.items("api_keys"):
            found.append((("upstreams", index, "api_keys"), "api_key is set beside it; put all keys into api_keys"))
        extra = item.get("headers")
        if (
            (item.text("api_key") or item.items("api_keys"))
            and extra is not None
            and isinstance(extra.value, dict)
            and item.text("auth") in {None, "key"}
        ):
            found += [
                (("upstreams", index, "headers", name), "a second credential beside api_key; keep one of them")
                for name in extra.value
                if name.lower() in CREDENTIAL_HEADERS
            ]
    return found


def _models(root: Node) -> list[tuple[TreePath, str]]:
    upstreams = root.items("upstreams")
    reach = _Reach(upstreams, _names(root.items("models")))
    found: list[tuple[TreePath, str]] = []
    for index, model in enumerate(root.items("models")):
        name = model.text("name")
        prefix = (name or "").partition("/")[0] if "/" in (name or "") else None
        if prefix is not None and prefix in reach.upstreams:
            found.append(
                (
                    ("models", index, "name"),
                    f"a name that begins with {prefix}/ addresses {prefix} directly; choose another",
                )
            )
        for at, target in enumerate(model.items("targets")):
            upstream = target_upstream(target)
            if upstream == ECHO[0] and target_model(target) != ECHO[1]:
                found.append((("models", index, "targets", at), "the upstream 'agw' has one model: agw/echo"))
            if upstream is not None and upstream not in reach.upstreams:
                path: TreePath = (
                    "models",
                    index,
                    "targets",
                    at,
                    *(() if isinstance(target.value, str) else ("upstream",)),
                )
                found.append((path, _no_such("upstream", upstream, reach.named)))
        for at, fallback in enumerate(model.items("fallbacks")):
            if not isinstance(fallback.value, str):
                continue
            if fallback.value == name:
                found.append((("models", index, "fallbacks", at), "a model cannot be its own fallback"))
            elif not reach.finds(fallback.value):
                found.append(
                    (
                        ("models", index, "fallbacks", at),
                        _no_such("model or upstream", fallback.value, reach.virtual | reach.named),
                    )
                )
    return found


def _no_such(what: str, name: str, known: set[str]) -> str:
    shown = name if name.isprintable() and len(name) <= 100 else ascii(name[:100])
    near = nearest(name, known)
    choices = f"; did you mean {near}?" if near else f"; there are: {', '.join(sorted(known)[:20]) or 'none'}"
    return f"there is no {what} {shown!r}{choices}"


def _keys(root: Node) -> list[tuple[TreePath, str]]:
    found: list[tuple[TreePath, str]] = []
    digests: dict[str, str] = {}
    candidates: list[tuple[TreePath, Node, str]] = [
        (("keys", index), item, str(index)) for index, item in enumerate(root.items("keys"))
    ]
    metrics = root.get("metrics")
    if metrics is not None and metrics.text("key"):
        candidates.append((("metrics",), Node({"key": metrics.value["key"]}), "metrics.key"))
    for path, item, position in candidates:
        if not isinstance(item.value, dict):
            continue
        given = _given(item) & set(KEY_FORMS)
        wrong = only_one(given, KEY_FORMS)
        if wrong:
            found.append((path, wrong))
        for form in sorted(given):
            text = item.text(form)
            if not text:
                continue
            digest = text.lower() if form == "key_sha256" else _sha256(text)
            owner = item.text("name") or position
            if digest in digests and not (len(given) > 1 and digests[digest] == owner):
                found.append(((*path, form), f"the same key as {digests[digest]}; every key has one name"))
            digests.setdefault(digest, owner)
    return found


def _teams(root: Node) -> list[tuple[TreePath, str]]:
    """Every key's team is there."""
    teams = _names(root.items("teams"))
    return [
        (("keys", index, "team"), _no_such("team", team, teams))
        for index, key in enumerate(root.items("keys"))
        if (team := key.text("team")) is not None and team not in teams
    ]


def _cache(root: Node) -> list[tuple[TreePath, str]]:
    """The server that answers are to be kept in is there."""
    cache, redis = root.get("cache"), root.get("redis")
    if cache is None or cache.text("backend") != "redis" or (redis is not None and redis.value is not None):
        return []
    return [(("cache", "backend"), "there is no 'redis' section with the server to keep answers in")]


def _agents(root: Node) -> list[tuple[TreePath, str]]:
    """Every agent is told of once, and no two are served under one name."""
    agents = root.get("agents")
    items = agents.items("overrides") if agents is not None else []
    found: list[tuple[TreePath, str]] = []
    here, apart = _workers(root, "server"), _workers(root, "agents")
    if here + apart > MAX_WORKERS and max(here, apart) <= MAX_WORKERS:
        found.append((("agents", "workers"), f"expected at most {MAX_WORKERS} with server.workers, which is {here}"))
    for field in ("name", "serve_as"):
        seen: dict[str, Node] = {}
        for index, item in enumerate(items):
            name = item.text(field)
            if name is not None and name in seen:
                message = f"the name {name!r} is taken already, at {seen[name].origin}"
                found.append((("agents", "overrides", index, field), message))
            elif name is not None:
                seen[name] = item
    return found


def _workers(root: Node, section: str) -> int:
    """How many the section wants; 0 for what is not said, or is no number."""
    node = root.get(section)
    value = node.get("workers") if node is not None else None
    told = str(value.value).strip() if value is not None else ""
    return processors() if told == "auto" else int(told) if told.isdecimal() else 0


def _sha256(text: str) -> str:
    import hashlib  # noqa: PLC0415  only where there are keys

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _limits(root: Node) -> list[tuple[TreePath, Node]]:
    found: list[tuple[TreePath, Node]] = [(("limits", index), item) for index, item in enumerate(root.items("limits"))]
    for section in ("keys", "teams", "upstreams", "models"):
        for at, owner in enumerate(root.items(section)):
            found += [((section, at, "limits", index), item) for index, item in enumerate(owner.items("limits"))]
    return found


def _exposure(root: Node) -> list[tuple[TreePath, str]]:
    server = root.get("server")
    address = server.text("host") if server is not None else None
    keys = root.get("keys")
    # Anything that is no text, and no address at all, is the settings' to refuse.
    if address is None or (keys is not None and keys.value) or not is_public(address):
        return []
    return [
        (
            ("server", "host"),
            (
                "without keys the gateway listens on loopback or a Unix socket only; "
                "set keys first, e.g. GATEWAY_KEYS__app__KEY=$(agw keys new)"
            ),
        )
    ]


def notes(root: Node) -> list[str]:
    """Give remarks on values that are allowed but do nothing."""
    found = []
    for item in root.items("upstreams"):
        auth = item.text("auth")
        for field, given in (("api_key", item.text("api_key")), ("api_keys", item.items("api_keys"))):
            if given and auth in {"passthrough", "none"}:
                found.append(f"upstream {item.text('name')}: {field} is never sent, because auth is {auth}")
    return found
