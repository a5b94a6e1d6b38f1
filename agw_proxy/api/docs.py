"""A page to read the OpenAPI document and to try it. Self-contained: it loads nothing but ``openapi.json``.

The policy lets its one style and its one script run by their digests and nothing else at all (W3C CSP Level 3,
section 2.3.1), so whatever came into the page as text could not run.
"""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from agw_proxy.api.endpoint import Endpoint, Response
from agw_proxy.types import Answer, Asked, Control

# Read at import: the disk is not for the request's path.
PAGE = Path(__file__).with_name("docs.html").read_bytes()


def policy(page: bytes) -> str:
    """Make the Content-Security-Policy of a page whose styles and scripts are inline (no attributes on their tags)."""
    scripts = _sources(rb"<script>(.*?)</script>", page)
    styles = _sources(rb"<style>(.*?)</style>", page)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {scripts}",
            f"style-src {styles}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _sources(tag: bytes, page: bytes) -> str:
    digests = [sha256(text).digest() for text in re.findall(tag, page, re.DOTALL)]
    return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests) or "'none'"


_HEADERS = (
    ("Content-Security-Policy", policy(PAGE)),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
)


async def show(_: Control, __: Asked) -> Answer:
    """Answer with the page."""
    return Answer(200, PAGE, content_type="text/html; charset=utf-8", headers=_HEADERS)


ENDPOINTS = (
    Endpoint(
        name="docs",
        method="GET",
        path="/docs",
        access="open",
        handler=show,
        summary="A page to read and try this API",
        tag="Documentation",
        responses={200: Response("The page.", {"text/html": {"type": "string"}})},
    ),
)
