"""What shape a field of the settings has: the one place that reads annotations (for names, hints and the docs)."""

import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from agw_proxy.config.settings import Settings

Kind = Literal["section", "items", "texts", "mapping", "scalar"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a field holds.

    ``section``: a model; ``items``: a list of models; ``texts``: a list of strings; ``mapping``: str to str;
    ``scalar``: the rest.
    ``model``: the model of a section or item. ``optional``: takes null. ``literal``: a string that is kept as it came.
    ``scalar``: a scalar's type.
    """

    kind: Kind
    model: type[BaseModel] | None = None
    optional: bool = False
    literal: bool = False
    scalar: Any = None

    @property
    def named(self) -> bool:
        """Whether these are items that are addressed by their ``name``."""
        return self.kind == "items" and self.model is not None and "name" in self.model.model_fields


@cache
def shape_of(annotation: Any) -> Shape:
    """Classify a field's annotation."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return shape_of(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        inner = shape_of(next(part for part in get_args(annotation) if part is not types.NoneType))
        return Shape(inner.kind, inner.model, optional=True, literal=inner.literal, scalar=inner.scalar)
    if origin is tuple:
        item = shape_of(get_args(annotation)[0])
        return Shape("items", item.model) if item.kind == "section" else Shape("texts")
    if origin is dict:
        return Shape("mapping")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape("section", annotation)
    return Shape("scalar", literal=annotation in {str, SecretStr}, scalar=annotation)


@cache
def members(model: type[BaseModel]) -> dict[str, Shape]:
    """Give the fields of a model with their shapes."""
    annotations: dict[str, Any] = {name: info.annotation for name, info in model.model_fields.items()}
    return {name: shape_of(annotation) for name, annotation in annotations.items()}


ROOT = Shape("section", Settings)


def descend(path: tuple[str | int, ...]) -> Shape | None:
    """Give the shape at a path of the settings (an item of a list by its index or name); None where there is none."""
    here: Shape | None = ROOT
    inside = False  # between a list and its item
    for step in path:
        if here is None:
            return None
        if here.kind == "items" and not inside:
            inside = True
            continue
        if here.kind in {"section", "items"} and here.model is not None:
            here = members(here.model).get(str(step))
            inside = False
        elif here.kind in {"texts", "mapping"}:
            here = Shape("scalar", literal=True)
        else:
            return None
    return Shape("section", here.model) if here is not None and inside else here
