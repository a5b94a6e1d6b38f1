"""Models in somebody else's cloud: Amazon Bedrock and Google's Vertex AI. Where they are, and whose account it is.

Amazon Bedrock API reference, "Endpoints"; Vertex AI documentation, "Locations".
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from agw_proxy.config.resilience import Part
from agw_proxy.config.values import FilePath, Name

_PLACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_PROJECT = re.compile(r"[a-z0-9](?:[a-z0-9.:-]{0,98}[a-z0-9])?")
CLOUDS = {"bedrock": "aws", "vertex": "google"}
"""The dialects that need a section of their own, and its name."""
EXAMPLES = {"aws": "{region: us-east-1}", "google": "{project: my-project, location: global}"}
SPOKEN = {"bedrock": ("messages",), "vertex": ("gemini", "messages")}
"""Of these forms an upstream speaks exactly one: the form says whose models are asked."""


def _place(value: str) -> str:
    if _PLACE.fullmatch(value) is None:
        raise ValueError("expected lower-case letters, digits and '-', e.g. us-east-1")
    return value


def _project(value: str) -> str:
    if _PROJECT.fullmatch(value) is None:
        raise ValueError("expected the id of a project: lower-case letters, digits, '-', '.' and ':'")
    return value


Place = Annotated[str, AfterValidator(_place)]
Project = Annotated[str, AfterValidator(_project)]


class Aws(Part):
    """Amazon Bedrock, for `dialect: bedrock`."""

    region: Place = Field(description="Bedrock's region, e.g. `us-east-1`: requests are signed for it.")
    profile: Name | None = Field(
        None,
        description="Profile of the AWS configuration files to sign with; null: the first credentials that AWS' own "
        "order finds (environment, files, the machine's role). With `api_key` nothing is signed.",
    )


class Google(Part):
    """Vertex AI, for `dialect: vertex`."""

    project: Project = Field(description="The id of the Google Cloud project.")
    location: Place = Field("global", description="Where the models run, e.g. `europe-west4`.")
    credentials: FilePath | None = Field(
        None, description="File of a service account, or of a user; null: the default ones."
    )


def completed(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """An upstream's settings with the address that follows from its cloud, unless it is a recording. Raises ValueError where the section is missing."""
    dialect = tree.get("dialect")
    section = CLOUDS.get(dialect) if isinstance(dialect, str) else None
    if section is None or tree.get("replay") is not None:
        return tree
    given = tree.get(section)
    if given is None:
        raise ValueError(f"dialect: {dialect} needs {section}, e.g. {section}: {EXAMPLES[section]}")
    if tree.get("base_url") is not None or not isinstance(given, Mapping):
        return tree
    place = given.get("region") if section == "aws" else given.get("location", "global")
    known = isinstance(place, str) and _PLACE.fullmatch(place) is not None
    made = _ADDRESSES[section](str(place) if known else "us-east-1")  # a place that is none is told as such, alone
    return {**tree, "base_url": made}


def conflict(dialect: str, speaks: Sequence[str], given: Mapping[str, object]) -> str | None:
    """What does not go together, or None. ``given``: the sections by name, None where one is not there."""
    for name, section in CLOUDS.items():
        if given[section] is not None and name != dialect:
            return f"{section} is for dialect: {name}; this upstream's is {dialect}"
    forms = SPOKEN.get(dialect)
    if forms is None or not speaks or (len(speaks) == 1 and speaks[0] in forms):
        return None
    if len(forms) == 1:
        return f"dialect: {dialect} speaks {forms[0]} only"
    return f"dialect: {dialect} speaks one of {', '.join(forms)}; make an upstream of its own for each"


def _bedrock(region: str) -> str:
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://bedrock-runtime.{region}.{suffix}"


def _vertex(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com/v1"
    if location in {"us", "eu"}:
        return f"https://aiplatform.{location}.rep.googleapis.com/v1"
    return f"https://{location}-aiplatform.googleapis.com/v1"


_ADDRESSES = {"aws": _bedrock, "google": _vertex}
