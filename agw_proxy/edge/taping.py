"""Wires the recording of exchanges: which secrets there are, where the files go, and who hears of what was not kept."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from agw_proxy.config.settings import Settings, Upstream
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import Metrics
from agw_proxy.store.masking import Mask
from agw_proxy.store.tapes import Folder, Tapes

SECRET_CHARACTERS = 8  # a shorter value is no secret, and common in bodies
RECORDING = "recording"


class Taping:
    """Of one process. ``keeper``: where upstreams hand their exchanges to."""

    def __init__(self, folder: Path, metrics: Metrics, log: Log) -> None:
        """Makes the folder. Raises OSError, ValueError where others may look into it."""
        self._secrets: set[str] = set()
        self._digests: set[str] = set()
        self._mask = Mask(())

        def tell(what: str, count: int) -> None:
            if what == "dropped":
                metrics.dropped(RECORDING, count)
                log.events.error("recording.not_written", folder=str(folder), exchanges=count)
            else:
                log.events.warning("recording.oldest_removed", folder=str(folder), exchanges=count)

        place = Folder(folder)
        place.prepare()
        self.keeper = Tapes(place, lambda: self._mask, tell)

    def know(self, settings: Settings, development: str | None) -> None:
        """These secrets are in use, too; those of earlier settings stay secret. ``development``: the generated key."""
        self._secrets |= {value for value in secrets_of(settings) if len(value) >= SECRET_CHARACTERS}
        self._secrets |= {development} if development is not None else set()
        self._digests |= {key.key_sha256 for key in settings.keys if key.key_sha256 is not None}
        self._mask = Mask(frozenset(self._secrets), frozenset(self._digests))


def taping(folder: Path, metrics: Metrics, log: Log) -> Taping:
    """What records into that folder. Raises ValueError."""
    try:
        return Taping(folder, metrics, log)
    except OSError as error:
        raise ValueError(f"recordings cannot be kept in {folder}: {error.strerror or error}") from None


def secrets_of(part: BaseModel) -> Iterator[str]:
    """All secrets of settings: what is declared as one, and the values of an upstream's own headers."""
    for name in type(part).model_fields:
        value = getattr(part, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, SecretStr):
                secret = item.get_secret_value()
                yield secret
                if "://" in secret and (password := _password(secret)):
                    yield from {password, unquote(password)}
            elif isinstance(item, BaseModel):
                yield from secrets_of(item)
    if isinstance(part, Upstream):
        yield from (value.rpartition(" ")[2] for value in part.headers.values())


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None
