"""Settings of what is kept: answers in the cache, by Idempotency-Key and by their ids, usage by day; and of Redis for replicas."""

import re
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator

from agw_proxy.config.resilience import Part
from agw_proxy.config.values import FilePath, LongerThanZero, Name, Names, Share, Whole

EXPECTED = "expected a URL such as redis://127.0.0.1:6379/0, rediss://... or unix:///path/to.sock"
OPTIONS = frozenset({"db", "client_name", "username", "password"})
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]|[^:\[\]]*)(?::[0-9]{1,5})?")
"""One of those that a URL of PostgreSQL's names."""
TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_check_hostname",
        "ssl_cert_reqs",
        "ssl_ciphers",
    }
)


def redis_url(value: SecretStr) -> SecretStr:
    """Take a redis://, rediss:// or unix:// URL; it may hold a password, so it is never shown."""
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(EXPECTED)
    try:
        url = urlsplit(value.get_secret_value())
        if url.port == 0:
            raise ValueError
    except ValueError:  # a port that is none; its own message would quote the URL
        raise ValueError(EXPECTED) from None
    known = OPTIONS | TLS_OPTIONS if url.scheme == "rediss" else OPTIONS
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if not options.keys() <= known:
        raise ValueError(f"of the options after its '?', one is not known here; expected {', '.join(sorted(known))}")
    database = options.get("db", "0" if url.scheme == "unix" else url.path.strip("/") or "0")
    if not (database.isascii() and database.isdigit()):
        raise ValueError("expected the number of a database after the port, or none")
    return value


class Lease(Part):
    """How a node takes from the shared buckets: in parts, spent locally, so that no request waits for Redis."""

    share: Share = Field(
        0.05,
        gt=0,
        description="How much of a limit's full bucket one node takes at a time. Nodes times this is the bound of what may pass too much.",
    )
    seconds: LongerThanZero = Field(2.0, description="How long a part may be kept; what is left of it goes back then.")


class Redis(Part):
    """Redis or Valkey: limits over several replicas, their cache, and news of reloads."""

    url: Annotated[SecretStr, AfterValidator(redis_url)] = Field(
        repr=False, description="`redis://`, `rediss://` (TLS) or `unix://`; best as `${NAME}`."
    )
    prefix: Name = Field("agw", description="What all its keys begin with; gateways with the same one share limits.")
    timeout: LongerThanZero = Field(0.05, description="How long an answer may take before the policies below apply.")
    on_failure: Literal["local", "fail_open", "fail_closed"] = Field(
        "local",
        description="Limits while Redis is slow or away: `local` gives each node its share (by `replicas`), "
        "`fail_open` lets all pass, `fail_closed` refuses with 503.",
    )
    budgets_on_failure: Literal["local", "fail_open", "fail_closed"] = Field(
        "fail_closed", description="The same for budgets and for all other limits in US dollars."
    )
    replicas: Whole | None = Field(
        None,
        ge=1,
        le=1000,
        description="How many nodes share the limits; null counts those that Redis has seen lately.",
    )
    lease: Lease = Field(Lease(), description="How a node takes its parts of the limits.")
    notices: bool = Field(
        True, description="Whether a reload here is told to the other nodes, which then read their own files again."
    )


class Cache(Part):
    """Answers that are given again to the same request."""

    backend: Literal["memory", "disk", "redis"] = Field(
        "memory",
        description="`memory` (each worker its own), `disk` (all workers of a machine) or `redis` (all nodes).",
    )
    models: Names = Field(("*",), description="Patterns of the models whose answers are kept, as callers name them.")
    ttl: LongerThanZero = Field(300.0, description="How long an answer is given again.")
    max_mb: Whole = Field(64, ge=1, le=1_048_576, description="Most that is kept, in MiB; the least used goes first.")
    max_answer_kb: Whole = Field(1024, ge=1, le=65536, description="The largest answer that is kept, in KiB.")
    scope: Literal["key", "shared"] = Field(
        "key",
        description="`key`: each key has answers of its own; `shared`: all keys that may use the model share them.",
    )
    single_flight: bool = Field(
        True, description="Whether a request that is the same as one under way waits for its answer."
    )
    path: FilePath | None = Field(None, description="Folder of the `disk` backend; null is one in the state directory.")


class Idempotency(Part):
    """Answers kept for requests that carry an `Idempotency-Key`."""

    ttl: LongerThanZero = Field(600.0, description="How long the same key gives the same answer.")
    max_mb: Whole = Field(
        64,
        ge=1,
        le=1_048_576,
        description="Most that is kept, in MiB; then the key is not honoured and the answer says so.",
    )


class Usage(Part):
    """Totals by key, model and day."""

    days: Whole = Field(400, ge=1, le=4000, description="How long they are kept.")
    path: FilePath | None = Field(None, description="SQLite file; null is `usage.db` in the state directory.")


class Runs(Part):
    """Requests that are answered in the background, for who asks again later: `/runs`, and Responses with `background`."""

    concurrent: Whole = Field(
        64, ge=0, le=10_000, description="How many at a time in each worker; over it 503. 0: none are taken."
    )
    retention: LongerThanZero = Field(86400.0, description="How long one is kept since it has ended.")
    max_mb: Whole = Field(
        1024, ge=1, le=1_048_576, description="Most that is kept, in MiB; then the oldest of whoever has the most goes."
    )
    max_run_mb: Whole = Field(
        64, ge=1, le=65536, description="Most events of one run, in MiB; one that has more to say is failed."
    )
    path: FilePath | None = Field(None, description="SQLite file; null is `runs.db` in the state directory.")


def postgres_url(value: SecretStr) -> SecretStr:
    """Take a postgresql:// URL; it may hold a password, so it is never shown."""
    url = value.get_secret_value()
    hosts = url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2].split(",")
    if not url.startswith(("postgresql://", "postgres://")) or not all(map(HOST.fullmatch, hosts)):
        raise ValueError("expected a URL such as postgresql://user:password@host:5432/database")
    return value


class Store(Part):
    """Responses and conversations, kept here for upstreams that keep none themselves, and sessions of agents."""

    responses: Literal["translated", "all", "none"] = Field(
        "translated",
        description="Whose Responses are kept, unless a request says `store: false`: those of models whose upstream does "
        "not speak Responses itself (`translated`), `all`, or `none`.",
    )
    retention: LongerThanZero = Field(
        30 * 86400.0, description="How long they are kept since they were made or last continued."
    )
    max_mb: Whole = Field(
        1024,
        ge=1,
        le=1_048_576,
        description="Most that is kept, in MiB; then the oldest of whoever has the most goes.",
    )
    path: FilePath | None = Field(None, description="SQLite file; null is `responses.db` in the state directory.")
    url: Annotated[SecretStr, AfterValidator(postgres_url)] | None = Field(
        None,
        repr=False,
        description="PostgreSQL, for the sessions of agents, where several gateways share them: `postgresql://`, best as "
        "`${NAME}`; null is `sessions.db` beside the other file.",
    )

    @property
    def keeps(self) -> bool:
        """Something may be kept."""
        return self.responses != "none"

    @field_validator("responses", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        return {True: "translated", False: "none"}.get(value, value) if isinstance(value, bool) else value
