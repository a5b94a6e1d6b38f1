"""How to generate: ``generationConfig`` of the Gemini API (reference, ``GenerationConfig``), into a Request and out of it."""

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects.base import Format, Losses, Malformed, Message, Reasoning, Request, Text, Tree, Untranslatable
from agw_proxy.dialects.efforts import budget_of, effort_of
from agw_proxy.dialects.gemini_names import branch, integer
from agw_proxy.dialects.gemini_schemas import json_schema

STOPS = 5
"""Stop sequences; Google refuses more."""
SEED_LIMIT = 2**31
PATH = "generationConfig"
ONE_OF = "Answer with one of the following, without the quotes and with nothing around it:"
CARRIED = frozenset({
    "responseModalities", "speechConfig", "imageConfig", "mediaResolution", "audioTimestamp", "enableEnhancedCivicAnswers",
})  # fmt: skip
"""Members that no other dialect knows; a Request has them in ``extra``."""
DYNAMIC = -1
"""The ``thinkingBudget`` that leaves it to the model."""
_READ = frozenset({
    "temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "candidateCount", "seed", "presencePenalty",
    "frequencyPenalty", "responseMimeType", "responseSchema", "responseJsonSchema", "responseLogprobs", "logprobs",
    "thinkingConfig",
})  # fmt: skip
_LITTLE = frozenset({"minimal", "low"})
_LEVELS = frozenset({"minimal", "low", "medium", "high"})
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")


def read_config(config: Tree, request: Request) -> None:
    """Enter ``config``, its names in camelCase, into the request. Raises Malformed, Untranslatable."""
    request.temperature = members.number(config, "temperature", PATH)
    request.top_p = members.number(config, "topP", PATH)
    request.top_k = integer(config, "topK", PATH)
    request.max_tokens = integer(config, "maxOutputTokens", PATH)
    request.stop = list(members.words(config, "stopSequences", PATH))
    if (integer(config, "candidateCount", PATH) or 1) != 1:
        raise Untranslatable("Another provider's model gives one candidate only.", f"{PATH}.candidateCount")
    request.seed = integer(config, "seed", PATH)
    request.presence_penalty = members.number(config, "presencePenalty", PATH)
    request.frequency_penalty = members.number(config, "frequencyPenalty", PATH)
    if members.flag(config, "responseLogprobs", PATH):
        request.logprobs = integer(config, "logprobs", PATH) or 0
    request.format = _read_format(config, request)
    request.reasoning = _read_thinking(config)
    for name, value in config.items():
        if name not in _READ and value and not (name == "responseModalities" and _is_plain(value)):
            request.extra.setdefault(name, value)


def _is_plain(modalities: object) -> bool:
    """Words are asked for, and nothing else."""
    return isinstance(modalities, list) and all(str(each).upper() == "TEXT" for each in modalities)


def _read_format(config: Tree, request: Request) -> Format | None:
    kind = members.text(config, "responseMimeType", PATH)
    if kind is not None and kind not in {"application/json", "text/plain"}:
        request.extra["responseMimeType"] = kind
        if kind == "text/x.enum":
            _tell_words(config, request)
        return None
    schema = config.get("responseSchema")
    if schema is not None:
        return Format(json_schema(schema, f"{PATH}.responseSchema"))
    whole = members.branch(config, "responseJsonSchema", PATH)
    if whole is not None:
        return Format(whole)
    return Format() if kind == "application/json" else None


def _tell_words(config: Tree, request: Request) -> None:
    """Say which: one of them, as it is and not in JSON, is what no other dialect can be asked for by a schema."""
    name = "responseSchema" if config.get("responseSchema") is not None else "responseJsonSchema"
    words = members.words(branch(config, name, PATH) or {}, "enum", f"{PATH}.{name}")
    if words:
        told = f"{ONE_OF} {', '.join(orjson.dumps(word).decode() for word in words)}."
        front = next((at for at, each in enumerate(request.messages) if each.role != "system"), len(request.messages))
        request.messages.insert(front, Message("system", [Text(told)]))


def _read_thinking(config: Tree) -> Reasoning | None:
    thinking = branch(config, "thinkingConfig", PATH)
    if thinking is None:
        return None
    path = f"{PATH}.thinkingConfig"
    level = (members.text(thinking, "thinkingLevel", path) or "").lower()
    budget = integer(thinking, "thinkingBudget", path)
    made = Reasoning(summary="auto" if members.flag(thinking, "includeThoughts", path) else None)
    if budget == 0:
        made.enabled = False
    elif budget is not None and budget < 0:
        made.adaptive = True
    else:
        made.budget = budget
    if level and level != "thinking_level_unspecified":
        if level not in _EFFORTS:
            raise Malformed(f"'{path}.thinkingLevel' has to be one of {', '.join(_EFFORTS)}.", f"{path}.thinkingLevel")
        made.effort = level
    return made


def write_config(request: Request, losses: Losses) -> Tree:
    """The request's ``generationConfig``; empty: nothing is asked for. Raises Untranslatable."""
    if request.n != 1:
        losses.of("n")
    made: Tree = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "maxOutputTokens": request.max_tokens,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
    }
    made = {name: value for name, value in made.items() if value is not None}
    if request.seed is not None and not -SEED_LIMIT <= request.seed < SEED_LIMIT:
        losses.of("seed")
        del made["seed"]
    stops = [each for each in request.stop if each]
    if len(stops) > STOPS:
        losses.of("stop")
    if stops:
        made["stopSequences"] = stops[:STOPS]
    if request.logprobs is not None:
        made["responseLogprobs"] = True
        if request.logprobs > 0:
            made["logprobs"] = request.logprobs
    if request.format is not None:
        made["responseMimeType"] = "application/json"
        if request.format.schema is not None:
            made["responseJsonSchema"] = request.format.schema
    thinking = _write_thinking(request, losses)
    if thinking:
        made["thinkingConfig"] = thinking
    return made


def thinks(model: str) -> str:
    """How a model is told to think: by ``budget`` (Gemini 2.5), by ``level`` (since 3), or ``never`` (before).

    Gemini API, "Gemini thinking": the one is refused where the other is meant. Names that say no generation are new ones.
    """
    name = model.lower().rpartition("/")[2]
    if name.startswith(("gemini-2.5", "gemini-robotics-er-1.5")):
        return "budget"
    return "never" if name.startswith(("gemini-1", "gemini-2", "gemma-1", "gemma-2", "gemma-3", "learnlm")) else "level"


def _write_thinking(request: Request, losses: Losses) -> Tree:
    asked = request.reasoning
    if asked is None:
        return {}
    off = asked.enabled is False or asked.effort == "none"
    way = thinks(request.model)
    if way == "never":
        if not off:
            losses.of("reasoning")
        return {}
    made: Tree = {"includeThoughts": True} if asked.summary is not None and not off else {}
    if way == "budget":
        made["thinkingBudget"] = _budget(asked, request.model.lower(), off, losses)
    else:
        level = _level(asked, request.model.lower(), off, losses)
        if level is not None:
            made["thinkingLevel"] = level
    return made


def _budget(asked: Reasoning, model: str, off: bool, losses: Losses) -> int:
    """Within the bounds that the models document."""
    least, most = (128, 32768) if "pro" in model else (512, 24576) if "lite" in model else (1, 24576)
    if off:
        if "pro" in model:  # it cannot be kept from thinking
            losses.of("reasoning")
            return least
        return 0
    if asked.budget is not None:
        return min(max(asked.budget, least), most)
    if asked.effort is None:
        return DYNAMIC
    return min(max(budget_of(asked.effort), least), most)


def _level(asked: Reasoning, model: str, off: bool, losses: Losses) -> str | None:
    """The nearest word that the model knows; None: its own default, which is to think as much as it finds fit."""
    if off:
        losses.of("reasoning")  # none of these can be kept from thinking
    effort = "minimal" if off else asked.effort or (effort_of(asked.budget) if asked.budget is not None else None)
    if effort is None:
        return None
    if effort not in _LEVELS:
        return "high"
    if "flash" in model:
        return effort
    if effort == "medium" and "gemini-3-pro" in model:
        return "high"  # the first of them knows two words
    return "low" if effort in _LITTLE else effort
