"""Settings of tools: functions that agents ask for by name, under the policy of the gateway."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from agw_proxy.config.resilience import Part
from agw_proxy.config.values import Duration, Whole

TOOL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FUNCTION = re.compile(r"(?:[^:]+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def tool_name(value: str) -> str:
    """Take a name that keys and limits give a tool."""
    if TOOL_NAME.fullmatch(value) is None:
        raise ValueError("expected up to 64 letters, digits, '_', '-' and '.', such as math.add")
    return value


def function(value: str) -> str:
    """Take where a function of Python is."""
    if FUNCTION.fullmatch(value) is None:
        raise ValueError("expected FILE.py:NAME or package.module:NAME, such as tools/math.py:add")
    return value


class Tool(Part):
    """A tool that agents may ask for: `gateway_tool("NAME")`."""

    name: Annotated[str, AfterValidator(tool_name)] = Field(
        description="What keys (`tools`), limits (`per: tool`) and agents call it."
    )
    python: Annotated[str, AfterValidator(function)] = Field(
        description="The function: `FILE.py:NAME`, taken up anew when the file changes, or `package.module:NAME` of what "
        "is installed. Its signature is the schema of its input; one that is not `async` runs on a thread of its own."
    )
    description: str | None = Field(
        None, max_length=4096, description="What models are told of it; null: its docstring."
    )
    timeout: Duration = Field(30.0, gt=0, le=3600, description="How long one call may take, with the wait for a place.")
    concurrent: Whole = Field(16, ge=1, le=1000, description="Calls at a time, in each worker; more wait.")
