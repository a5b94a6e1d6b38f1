"""Whom an upstream's TLS trusts, and why a connection failed in words of ours."""

import errno
import functools
import os
import socket
import ssl
from pathlib import Path

NO_DESCRIPTOR = "No connection to upstream '{}': this gateway has no file descriptor left (ulimit -n). Try again."


@functools.cache
def system_trust() -> ssl.SSLContext:
    """Verification with the system's authorities: 50 ms of reading files, so never on the loop, and once."""
    return ssl.create_default_context()


def trust(name: str, ca_file: Path) -> ssl.SSLContext:
    """Verification with this file's authorities on top of the system's. Raises ValueError."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise ValueError(
            f"upstream '{name}': no certificates can be read from ca_file {ca_file} ({error.strerror or error})"
        ) from None
    return context


def reason(error: BaseException) -> str:
    """A short cause without addresses or texts of foreign origin."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its name was not found"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate was not accepted"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return type(error).__name__


def out_of_descriptors(error: BaseException) -> bool:
    """Neither this process nor the system has a file descriptor left: no fault of the upstream's."""
    found = getattr(error, "os_error", error)  # aiohttp wraps it
    return isinstance(found, OSError) and found.errno in {errno.EMFILE, errno.ENFILE}
