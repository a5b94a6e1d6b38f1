"""Keys and their rights, taken up anew without a restart."""

import orjson

from agw_proxy.api.endpoint import Endpoint, Response
from agw_proxy.errors import ReloadFailed
from agw_proxy.types import Answer, Asked, Control


async def refresh(control: Control, _: Asked) -> Answer:
    """Read the configuration again; it is in force when the answer comes. Raises ReloadFailed: the old one stays."""
    return Answer(200, orjson.dumps(dict(await control.reload())))


ENDPOINTS = (
    Endpoint(
        name="security_refresh",
        method="POST",
        path="/security/refresh",
        access="admin",
        handler=refresh,
        summary="Take up the configuration anew",
        description="Keys, rights, limits and routes. A configuration with a fault is refused whole.",
        tag="Operation",
        responses={200: Response("What is in force now.", {"application/json": {"type": "object"}})},
        errors=(ReloadFailed,),
    ),
)
