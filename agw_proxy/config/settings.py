"""The settings: one frozen model a section, each field with its default, its bounds and its meaning.

The models only validate. They derive from pydantic-settings at the root, but with its own sources switched off: what
came from which file or environment name is known to ``loader`` alone. docs/configuration.md is generated from here
(``reference.py``).
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agw_proxy.config.agents import Agents
from agw_proxy.config.allowances import Alerts, Budget, Limit, Price, Sessions, Team
from agw_proxy.config.clouds import Aws, Google, completed, conflict
from agw_proxy.config.presets import BY_NAME, NAMES
from agw_proxy.config.resilience import (
    Adaptive,
    Breaker,
    BreakerOverride,
    Hedge,
    Part,
    Probe,
    Queue,
    Retries,
    RetryOverride,
    TimeoutOverride,
    Timeouts,
)
from agw_proxy.config.storage import Cache, Idempotency, Redis, Runs, Store, Usage
from agw_proxy.config.tools import Tool
from agw_proxy.config.tracing import Trace
from agw_proxy.config.values import (
    Balance,
    BaseURL,
    Credential,
    Dialect,
    Digest,
    Duration,
    Factor,
    FilePath,
    GatewayKey,
    Headers,
    Heartbeat,
    Host,
    LongerThanZero,
    Name,
    Names,
    Port,
    Speaks,
    TargetName,
    UpstreamName,
    Whole,
    Workers,
    one_of,
    only_one,
)

UNSUPPORTED = (
    "approvals", "plugins", "tls", "cors", "trusted_proxies", "identity", "proxy", "health",
)  # fmt: skip
"""Sections of the contract that a later version brings; until then each is refused by name."""

UNSUPPORTED_FIELDS = frozenset({("upstreams", "proxy")})
"""Likewise for fields: (section, field)."""

REPLAYED = "http://replay.invalid"  # RFC 6761 section 6.4: nobody can be there
"""The address of an upstream that has none, since its answers are recorded ones."""

KEY_FORMS = ("key", "key_sha256")

PresetName = Annotated[str, one_of(*NAMES)]


class Server(Part):
    """Where the gateway listens, and its bounds."""

    host: Host = Field(
        "127.0.0.1",
        description="Address to listen on: IPv4, IPv6 or `unix:/path`. Without `keys` only loopback or a Unix socket.",
    )
    port: Port = Field(8080, description="TCP port; 0 takes any free one.")
    workers: Workers = Field(
        1,
        description="Number of processes on the port, 1 to 28; `auto` is one a processor that may be used. "
        "More than 1 on Linux only.",
    )
    heartbeat_seconds: Heartbeat = Field(
        10.0,
        description="A worker whose loop has stood still for this long is ended and replaced; 0 never. "
        "Only with several workers.",
    )
    admin_port: Port | None = Field(
        None, description="A port of its own for the admin endpoints; null serves them on `port`."
    )
    readiness: Literal["admin", "open", "plain"] = Field(
        "admin",
        description="Who is told of the upstreams by `/health/ready?verbose`: callers with an `admin` key; all (`open`); "
        "nobody (`plain`).",
    )
    max_body_mb: Whole = Field(32, ge=1, le=1024, description="Largest request body in MiB; over it 413.")
    max_header_kb: Whole = Field(32, ge=4, le=1024, description="Largest request head in KiB; over it 431.")
    json_depth: Whole = Field(64, ge=8, le=512, description="Deepest nesting of a JSON body; deeper is 400.")
    max_connections: Whole = Field(
        10000, ge=1, le=1_000_000, description="Most client connections at once, in each worker."
    )
    max_requests: Whole | None = Field(
        None, ge=1, le=1_000_000, description="Requests at once in each worker; over it 503. null: no bound."
    )
    max_loop_lag: LongerThanZero | None = Field(
        None, description="How late the loop may be before requests get 503; null: no bound."
    )
    drain_seconds: Duration = Field(30.0, description="How long running requests may take to finish after SIGTERM.")
    record: FilePath | None = Field(
        None,
        description="Folder in which every exchange with an upstream is recorded, without secrets (`agw serve --record`); "
        "null: none is.",
    )
    lane: Literal["auto", "full"] = Field(
        "auto",
        description="`full` sends every request through aiohttp, to compare; `auto` takes the fast lane where it can.",
    )
    head_seconds: LongerThanZero = Field(15.0, description="Deadline for a whole request head; over it 408.")
    body_seconds: LongerThanZero = Field(60.0, description="Deadline for a whole request body; over it 408.")
    write_seconds: LongerThanZero = Field(
        60.0, description="How long a client may read nothing of its answer; over it the connection is cut."
    )
    responses_websocket: bool = Field(
        True,
        description="Serve the Responses API over a WebSocket too (an upgrade on `GET /v1/responses`); false: 426, so "
        "that clients fall back to HTTP at once.",
    )
    ping_seconds: Duration = Field(
        15.0,
        description="A stream that waits for its first token gets a heartbeat after so long, and again; 0: none. "
        "Not in Gemini's form.",
    )
    keepalive_seconds: LongerThanZero = Field(75.0, description="How long an idle client connection stays open.")
    state_dir: FilePath | None = Field(
        None,
        description="Directory for what is kept: the generated key, and, where no `path` says otherwise, `usage`, `store` and `runs`; "
        "null is `$XDG_STATE_HOME/agw` or `~/.local/state/agw`.",
    )
    upstream_auto_reload: bool = Field(
        False, description="Reload when the upstream file changes; not acted on by this version."
    )
    tool_auto_reload: bool = Field(
        False, description="Take up tools anew when a file of theirs, or one beside it, changes."
    )


class Upstream(Part):
    """A service that runs models."""

    name: UpstreamName = Field(
        description="Its name, also in `name/model`; lower-case. `agw` and `agents` are reserved."
    )
    dialect: Dialect = Field("openai", description="Whose API it speaks: paths, credentials and errors follow from it.")
    preset: PresetName | None = Field(
        None,
        description="What it is: brings `base_url` and `dialect`, the forms that it speaks, and its quirks. "
        "null: known by its name or the host of its address, else nothing is.",
    )
    speaks: Speaks = Field(
        (),
        max_length=5,
        description="In which forms a generation may be asked of it, the one to translate into first: `chat`, "
        "`responses`, `messages`, `gemini`; behind these `completions`, the older form. Empty: those of its preset, "
        "else of its dialect (`chat` and `completions` for `openai`).",
    )
    api_version: Name | None = Field(
        None,
        description="Azure: the `api-version` of its deployments; null for the v1 API (`.../openai/v1`), which has none.",
    )
    aws: Aws | None = Field(None, description="Amazon Bedrock, for `dialect: bedrock`; null: none.")
    google: Google | None = Field(None, description="Vertex AI, for `dialect: vertex`; null: none.")
    base_url: BaseURL = Field(description="http(s) URL without credentials or query, e.g. `https://api.openai.com/v1`.")
    api_key: Credential | None = Field(
        None, description="The upstream's key; null sends none. Best as `${NAME}` or `${file:/path}`."
    )
    auth: Literal["key", "passthrough", "none"] = Field(
        "key", description="`key` sends `api_key`, `passthrough` the caller's own credential, `none` nothing."
    )
    models: Names = Field(("*",), description="Patterns of the models that it serves.")
    headers: Headers = Field(default_factory=dict, repr=False, description="Extra headers to send.")
    optional: bool = Field(
        False, description="Leave the upstream out where one of its `${NAME}` is not set, instead of refusing to start."
    )
    stream_usage: bool = Field(
        True, description="Ask for the usage in streams (and strip it again where the caller did not)."
    )
    timeouts: TimeoutOverride = Field(
        TimeoutOverride(), description="What is different from `timeouts` for this upstream."
    )
    retries: RetryOverride = Field(RetryOverride(), description="What is different from `retries` for this upstream.")
    api_keys: tuple[Credential, ...] = Field(
        (),
        max_length=100,
        repr=False,
        description="Several keys instead of `api_key`: taken in turn; one that is refused or limited rests.",
    )
    breaker: BreakerOverride = Field(
        BreakerOverride(), description="What is different from `breaker` for this upstream."
    )
    health: Probe = Field(Probe(), description="Asking it regularly whether it is well.")
    max_concurrent: Whole | None = Field(
        None, ge=1, le=1_000_000, description="Requests at once, in each worker; more wait in `queue`. null: no bound."
    )
    queue: Queue = Field(Queue(), description="Requests that wait for a place, where `max_concurrent` is set.")
    adaptive: Adaptive | None = Field(
        None, description="A bound on requests at once that follows the upstream's latency and errors; null: none."
    )
    limits: tuple[Limit, ...] = Field((), description="Limits of this upstream, for all keys together, see `limits`.")
    replay: FilePath | None = Field(
        None, description="Folder with recordings that answer instead of `base_url`, which may then be left out."
    )
    replay_speed: Factor = Field(
        1.0, description="How fast recorded answers come, a factor: 2 is twice as fast as they were, 0 at once."
    )
    ca_file: FilePath | None = Field(
        None, description="PEM file with the certificate authorities to trust for it. Verification is never off."
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        found = BY_NAME.get(value.get("preset") or "") if isinstance(value, dict) else None
        value = value if found is None else {"base_url": found.base_url, "dialect": found.dialect, **value}
        value = completed(value) if isinstance(value, dict) else value
        return {"base_url": REPLAYED, **value} if isinstance(value, dict) and value.get("replay") else value

    @model_validator(mode="after")
    def _cloud(self) -> Self:
        wrong = conflict(self.dialect, self.speaks, {"aws": self.aws, "google": self.google})
        if wrong:
            raise ValueError(wrong)
        return self


class Target(Part):
    """Where a virtual model leads: `{upstream, model, weight}` or the shorthand `upstream/model`."""

    upstream: TargetName = Field(
        description="Name of an upstream; `agw` has the model `echo`, `agents` the agents by their ids."
    )
    model: Name = Field(description="The model's name there.")
    weight: Whole = Field(1, ge=1, le=1_000_000, description="Its share of the requests.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        upstream, slash, model = value.partition("/")
        if not slash or not upstream or not model:
            raise ValueError("expected upstream/model, or {upstream: ..., model: ..., weight: ...}")
        return {"upstream": upstream, "model": model}


class Model(Part):
    """A virtual model: a name of your own over one or more targets."""

    name: Name = Field(description="What callers ask for.")
    targets: tuple[Target, ...] = Field(min_length=1, max_length=64, description="Where it leads.")
    balance: Balance = Field(
        "weighted",
        description="How a target is chosen: by `weight`, the one with the fewest requests under way, the one whose "
        "first token came soonest lately (the better of two drawn), or always the `first`.",
    )
    sticky: Literal["session", "prefix"] | None = Field(
        None,
        description="Requests of one `x-session-id`, or with one beginning of the prompt, keep to one target, so that "
        "its cache serves them; null: they do not.",
    )
    fallbacks: Names = Field((), description="Models to try next, in order: virtual ones or `upstream/model`.")
    last_resort: Literal["echo"] | None = Field(
        None, description="`echo`: where all targets fail, the built-in echo model answers, marked `x-agw-fallback`."
    )
    on_break: Literal["fail", "restart_if_uncommitted"] = Field(
        "fail",
        description="What happens when a stream breaks: it ends with an error; or it begins anew elsewhere, as long "
        "as the client has seen no content.",
    )
    timeouts: TimeoutOverride = Field(TimeoutOverride(), description="What is different for this model.")
    retries: RetryOverride = Field(RetryOverride(), description="What is different from `retries` for this model.")
    hedge: Hedge | None = Field(None, description="A second attempt for a late answer; null: none.")
    limits: tuple[Limit, ...] = Field((), description="Limits of this model, for all keys together, see `limits`.")
    cache: bool | None = Field(None, description="Whether its answers are kept; null: as `cache.models` says.")


class Key(Part):
    """A key that callers present, and what it may do."""

    name: Name = Field(description="Name in logs and metrics.")
    key: GatewayKey | None = Field(
        None, description="The key itself, at least 22 characters; best as `${NAME}` or `${file:/path}`."
    )
    key_sha256: Digest | None = Field(
        None, repr=False, description="Its SHA-256 in hexadecimal instead, so that the file holds no secret."
    )
    models: Names = Field(("*",), description="Patterns of the models that it may use.")
    tools: Names = Field((), description="Patterns of the tools that it may use.")
    admin: bool = Field(False, description="Whether it may use the admin endpoints.")
    fallbacks: bool = Field(False, description="Whether its requests may name `fallbacks` of their own.")
    team: Name | None = Field(None, description="The team it belongs to, one of `teams`.")
    limits: tuple[Limit, ...] = Field((), description="Limits of this key, see `limits`.")
    budgets: tuple[Budget, ...] = Field((), description="Budgets of this key, see `budgets`.")
    sessions: Sessions | None = Field(None, description="Caps on this key's sessions; null: those of `sessions`.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        wrong = only_one({form for form in KEY_FORMS if getattr(self, form) is not None}, KEY_FORMS)
        if wrong:
            raise ValueError(wrong)
        return self


class Log(Part):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least severe level to write.")
    format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="`auto` is pretty on a terminal and JSON elsewhere."
    )
    file: FilePath | None = Field(None, description="Write to this file; null is standard error.")


class Metrics(Part):
    """Metrics for Prometheus."""

    prometheus: bool = Field(True, description="Whether `/metrics` is served.")
    key: GatewayKey | None = Field(None, description="A read-only key that may do nothing but scrape.")


class Settings(BaseSettings):
    """All of it. Made by ``loader.load``; frozen, down to the items."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True
    )

    server: Server = Server()
    upstreams: tuple[Upstream, ...] = Field((), description="Services that run models.")
    models: tuple[Model, ...] = Field((), description="Virtual models.")
    keys: tuple[Key, ...] = Field((), description="Keys that callers present.")
    limits: tuple[Limit, ...] = Field((), description="Limits for all keys together or each.")
    teams: tuple[Team, ...] = Field((), description="Keys that share limits and budgets.")
    budgets: tuple[Budget, ...] = Field((), description="Budgets for all keys together or each.")
    sessions: Sessions | None = Field(None, description="Caps on each session; null: none.")
    prices: tuple[Price, ...] = Field(
        (), description="What models cost; stronger than the shipped table (`agw_proxy/policy/prices.yaml`)."
    )
    alerts: Alerts = Alerts()
    redis: Redis | None = Field(None, description="For several replicas; null: this node is alone.")
    cache: Cache | None = Field(None, description="Answers that are given again; null: none are kept.")
    idempotency: Idempotency = Idempotency()
    usage: Usage = Usage()
    store: Store | None = Field(None, description="Responses and conversations kept here; null: none are.")
    runs: Runs = Runs()
    agents: Agents = Agents()
    tools: tuple[Tool, ...] = Field((), max_length=1000, description="Functions that agents may ask for by name.")
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    breaker: Breaker = Breaker()
    memory_limit_mb: Whole | None = Field(
        None, ge=64, le=1_048_576, description="Memory of a worker over which requests get 503; null: no bound."
    )
    log: Log = Log()
    metrics: Metrics = Metrics()
    trace: Trace = Trace()

    @property
    def has_budgets(self) -> bool:
        """Somebody has one."""
        return any((self.budgets, *(key.budgets for key in self.keys), *(team.budgets for team in self.teams)))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  likewise
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what the loader hands in: it has read the environment, and knows where each value came from."""
        return (init_settings,)
