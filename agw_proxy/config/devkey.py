"""The generated development key: made once, kept in the state directory, readable by its owner only."""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agw_proxy.config.tree import ConfigError, Origin, problem

if TYPE_CHECKING:
    from agw_proxy.config.settings import Key, Settings

FILE = "dev.key"
NAME = "development"
KEY_BYTES = 32  # 256 random bits
KEY = re.compile(r"agw-[A-Za-z0-9_-]{43}")
OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def generate() -> str:
    """Make a new gateway key: ``agw-`` and 32 random bytes in URL-safe base64 (RFC 4648 section 5, unpadded)."""
    return f"agw-{secrets.token_urlsafe(KEY_BYTES)}"


def let_in(settings: "Settings", generated: str | None) -> "Sequence[Key]":
    """Give the keys that are let in: those of the settings, or the ``generated`` one."""
    if generated is None:
        return settings.keys
    from pydantic import SecretStr  # noqa: PLC0415  who only makes keys does without

    from agw_proxy.config.settings import Key  # noqa: PLC0415  likewise

    # Made without validation: it is ours, and a validator of keys alone would have to be built for it.
    return (Key.model_construct(name=NAME, key=SecretStr(generated), admin=True, tools=("*",)),)


def state_dir(configured: Path | None, environ: Mapping[str, str]) -> Path:
    """Give ``server.state_dir``, else ``$XDG_STATE_HOME/agw`` (absolute, as XDG asks), else ``~/.local/state/agw``."""
    if configured is not None:
        return configured
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base, "agw")
    home = environ.get("HOME") or str(Path.home())
    return Path(home, ".local", "state", "agw")


def ensure(state_dir: Path) -> str:
    """Give the key in ``state_dir``, made at the first call.

    Any number of processes may call at once and get the same one.
    Raises ConfigError where the directory or the file cannot be used or could be read or changed by others.
    """
    path = state_dir / FILE
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if state_dir.stat().st_mode & OTHERS_WRITE:
            raise _refusal(state_dir, f"others may write in it; use a directory of your own: chmod 700 {state_dir}")
        if not path.exists() and not path.is_symlink():
            _create(path)
        return _read(path)
    except OSError as error:
        raise _refusal(
            path, f"the development key cannot be kept here: {error.strerror or 'not possible'}; set server.state_dir"
        ) from None


def _create(path: Path) -> None:
    """Write a new key aside and link it into place: it appears whole or not at all, and whoever links first wins."""
    aside = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{generate()}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster; its key is the one
            os.link(aside, path, follow_symlinks=False)
    finally:
        aside.unlink()


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, "expected a regular file")
        if status.st_mode & OTHERS:
            raise _refusal(path, f"others may read or write the development key; delete it, or: chmod 600 {path}")
        if status.st_uid != os.geteuid():
            raise _refusal(
                path, "the development key belongs to another user; set server.state_dir to a directory of your own"
            )
        text = file.read(256)
    key = text.decode("ascii", "replace").removesuffix("\n")
    if KEY.fullmatch(key) is None:
        raise _refusal(path, "does not hold a development key; delete the file to have a new one made")
    return key


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError([problem(message, origin=Origin(file=str(path)))])


def generated(settings: "Settings", environ: Mapping[str, str]) -> str | None:
    """The key that serves where none is configured. Raises ConfigError where it cannot be kept."""
    return None if settings.keys else ensure(state_dir(settings.server.state_dir, environ))
