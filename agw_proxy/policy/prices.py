"""What models cost: the prices of the configuration over the shipped table, by upstream and the model's name there.

Who is asked for free is known by where it is: a server on this machine costs nothing, unless the configuration says
otherwise. The shipped table is about providers (``hosts``); closed models cost what they cost wherever they are had.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agw_proxy._hot.money import Tariff
from agw_proxy._hot.route import Globs
from agw_proxy.config.allowances import Price
from agw_proxy.config.settings import Upstream
from agw_proxy.config.values import is_loopback, micro_dollars

SHIPPED = Path(__file__).with_name("prices.yaml")
FREE = Tariff()
OWN = frozenset({"agw", "agents"})  # upstreams in this process; what an agent asks has its own price
MAX_KEPT = 4096  # answers that are remembered


class Row(msgspec.Struct, frozen=True):
    """A pattern and what models that match it cost."""

    pattern: Globs
    tariff: Tariff


class Section(msgspec.Struct, frozen=True):
    """The models of one provider. ``anywhere``: they cost the same at upstreams that are nobody's section."""

    hosts: tuple[str, ...]
    anywhere: bool
    rows: tuple[Row, ...]

    def at(self, host: str) -> bool:
        """Whether this provider answers there."""
        return any(host == known or host.endswith((f".{known}", f"-{known}")) for known in self.hosts)


class Prices:
    """Finds the price of a target. Made once a configuration; the shipped table is read where some upstream needs it."""

    def __init__(self, prices: Sequence[Price], upstreams: Sequence[Upstream] | None = None) -> None:
        """``prices``: of the configuration, the first match counts. ``upstreams``: all there are; None: nobody knows."""
        self._own = tuple(Row(Globs((price.model,)), tariff_of(price)) for price in prices)
        self._hosts = {upstream.name: host_of(upstream.base_url) for upstream in upstreams or ()}
        away = any(not is_loopback(host) for host in self._hosts.values())
        self.as_of, self._sections = shipped() if away or upstreams is None else ("", ())
        self._known: dict[tuple[str, str], Tariff | None] = {}

    def of(self, upstream: str, model: str) -> Tariff | None:
        """What ``model`` costs at ``upstream`` (both by their names there); None where nobody has said."""
        key = (upstream, model)
        if key not in self._known:
            if len(self._known) >= MAX_KEPT:
                self._known.clear()
            self._known[key] = self._find(upstream, model)
        return self._known[key]

    def _find(self, upstream: str, model: str) -> Tariff | None:
        for row in self._own:
            if row.pattern.match(f"{upstream}/{model}") or row.pattern.match(model):
                return row.tariff
        host = self._hosts.get(upstream, "")
        if upstream in OWN or (host and is_loopback(host)):
            return FREE
        name = model.rpartition("/")[2]
        name = name.partition("anthropic.")[2] or name  # as Bedrock names it, and its profiles
        if name.startswith("claude-"):
            name = name.replace(".", "-")  # as some resellers spell versions
        own = [section for section in self._sections if section.at(host)]
        for section in own or [section for section in self._sections if section.anywhere]:
            for row in section.rows:
                if row.pattern.match(name):
                    return row.tariff
        return FREE if is_near(host) else None


def tariff_of(price: Price) -> Tariff:
    """The same, compiled."""
    cached = price.input if price.cached is None else price.cached
    return Tariff(
        price.input, cached, price.output, price.request, price.image, price.minute, max_output=price.max_output or 0
    )


def host_of(base_url: str) -> str:
    """The host of a URL in lower case; empty where there is none."""
    return (urlsplit(base_url).hostname or "").lower()


def is_near(host: str) -> bool:
    """It is on this machine or the local network, by its address or by a name that has no dot or ends like one there."""
    try:
        address = ip_address(host)
    except ValueError:
        return bool(host) and ("." not in host or host.endswith((".local", ".internal", ".lan", ".localhost")))
    return address.is_private or address.is_loopback or address.is_link_local


def shipped() -> tuple[str, tuple[Section, ...]]:
    """The date of the shipped table, and its sections in order."""
    import yaml  # noqa: PLC0415  for the table only

    tree = yaml.load(SHIPPED.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe ones
    return str(tree["as_of"]), tuple(_section(section) for section in tree["sections"])


def _section(section: Mapping[str, Any]) -> Section:
    rows = [_row(*row) for row in section["models"]]
    rows += [Row(Globs((name,)), Tariff(image=micro_dollars(usd))) for name, usd in section.get("images", {}).items()]
    rows += [Row(Globs((name,)), Tariff(minute=micro_dollars(usd))) for name, usd in section.get("minutes", {}).items()]
    return Section(tuple(section["hosts"]), section.get("anywhere", False), tuple(rows))


def _row(pattern: str, read: float, cached: float | None, written: float, longest: int | None) -> Row:
    again = read if cached is None else cached
    tariff = Tariff(micro_dollars(read), micro_dollars(again), micro_dollars(written), max_output=longest or 0)
    return Row(Globs((pattern,)), tariff)
