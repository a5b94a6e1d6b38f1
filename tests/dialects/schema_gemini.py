"""What the Gemini API takes and gives, as a table: "Generating content" of its reference, checked against google-genai 3.4's types.

A specification is a name of this table, a Python type, a list of one specification, a set of words, or ``BYTES``.
"""

import re
from typing import Any

BYTES = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
MODES = {"AUTO", "ANY", "NONE", "VALIDATED"}
LEVELS = {"minimal", "low", "medium", "high"}
FINISHES = {"STOP", "MAX_TOKENS", "SAFETY"}
STATUSES = {
    "INVALID_ARGUMENT", "UNAUTHENTICATED", "FAILED_PRECONDITION", "PERMISSION_DENIED", "NOT_FOUND", "ABORTED", "CANCELLED",
    "RESOURCE_EXHAUSTED", "INTERNAL", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED",
}  # fmt: skip

TABLE: dict[str, dict[str, Any]] = {
    "Request": {
        "contents": ["Content"], "systemInstruction": "Instruction", "tools": ["Tool"], "toolConfig": "ToolConfig",
        "generationConfig": "GenerationConfig", "safetySettings": [dict], "cachedContent": str, "labels": dict,
        "serviceTier": {"flex", "priority", "standard"},
    },
    "Content": {"role": {"user", "model"}, "parts": ["Part"]},
    "Instruction": {"parts": ["Part"]},
    "Part": {
        "text": str, "thought": bool, "thoughtSignature": BYTES, "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse", "inlineData": "Blob", "fileData": "FileData",
    },
    "FunctionCall": {"id": str, "name": str, "args": dict},
    "FunctionResponse": {"id": str, "name": str, "response": dict, "parts": ["FunctionResponsePart"]},
    "FunctionResponsePart": {"inlineData": "Blob"},
    "Blob": {"mimeType": str, "data": BYTES},
    "FileData": {"mimeType": str, "fileUri": str},
    "Tool": {
        "functionDeclarations": ["FunctionDeclaration"], "googleSearch": dict, "codeExecution": dict, "urlContext": dict,
    },
    "FunctionDeclaration": {"name": str, "description": str, "parameters": dict, "parametersJsonSchema": dict},
    "ToolConfig": {"functionCallingConfig": "FunctionCallingConfig", "retrievalConfig": dict},
    "FunctionCallingConfig": {"mode": MODES, "allowedFunctionNames": [str]},
    "GenerationConfig": {
        "temperature": float, "topP": float, "topK": int, "maxOutputTokens": int, "candidateCount": int,
        "stopSequences": [str], "seed": int, "presencePenalty": float, "frequencyPenalty": float,
        "responseMimeType": {"application/json"},
        "responseJsonSchema": dict, "responseLogprobs": bool, "logprobs": int, "thinkingConfig": "ThinkingConfig",
        "mediaResolution": str, "responseModalities": [str], "speechConfig": dict,
    },
    "ThinkingConfig": {"includeThoughts": bool, "thinkingBudget": int, "thinkingLevel": LEVELS},
    "Response": {
        "candidates": ["Candidate"], "usageMetadata": "Usage", "modelVersion": str, "responseId": str,
    },
    "Candidate": {
        "content": "Content", "finishReason": FINISHES, "index": int, "groundingMetadata": "Grounding",
        "logprobsResult": "Logprobs",
    },
    "Usage": {
        "promptTokenCount": int, "cachedContentTokenCount": int, "candidatesTokenCount": int, "thoughtsTokenCount": int,
        "totalTokenCount": int, "promptTokensDetails": ["Counted"],
    },
    "Counted": {"modality": str, "tokenCount": int},
    "Grounding": {"groundingChunks": ["Chunk"], "groundingSupports": ["Support"]},
    "Chunk": {"web": "Web"},
    "Web": {"uri": str, "title": str},
    "Support": {"segment": "Segment", "groundingChunkIndices": [int]},
    "Segment": {"startIndex": int, "endIndex": int},
    "Logprobs": {"chosenCandidates": ["Token"], "topCandidates": ["Top"]},
    "Top": {"candidates": ["Token"]},
    "Token": {"token": str, "logProbability": float},
    "ErrorBody": {"error": "Error"},
    "Error": {"code": int, "message": str, "status": STATUSES, "details": [dict]},
}  # fmt: skip
REQUIRED: dict[str, list[str]] = {
    "Request": ["contents"], "Content": ["role", "parts"], "FunctionCall": ["name"], "Blob": ["mimeType", "data"],
    "FunctionResponse": ["name", "response"], "FileData": ["fileUri"], "FunctionDeclaration": ["name"],
    "FunctionCallingConfig": ["mode"], "Candidate": ["content", "index"], "Response": ["candidates"],
    "ErrorBody": ["error"], "Error": ["code", "message", "status"],
}  # fmt: skip
DATA = ("text", "functionCall", "functionResponse", "inlineData", "fileData")


def conforms(tree: Any, spec: Any = "Request", path: Any = "$") -> None:
    """Raise AssertionError, with the path, where the tree is not what the API takes (or gives)."""
    if isinstance(spec, list):
        assert isinstance(tree, list), f"{path} is no list"
        assert tree, f"{path} is an empty list"
        for at, each in enumerate(tree):
            conforms(each, spec[0], f"{path}[{at}]")
    elif isinstance(spec, set):
        assert tree in spec, f"{path} is {tree!r}"
    elif spec is BYTES:
        assert isinstance(tree, str), f"{path} is {tree!r}"
        assert BYTES.fullmatch(tree), f"{path} is no base64: {tree!r}"
        assert len(tree) % 4 == 0, f"{path} is cut or not padded"
    elif isinstance(spec, type):
        kinds = (int, float) if spec is float else (spec,)
        assert type(tree) in kinds, f"{path} is {tree!r}, not {spec.__name__}"
    else:
        assert isinstance(tree, dict), f"{path} is no object"
        for name, value in tree.items():
            assert name in TABLE[spec], f"{path}.{name} is not known to the API"
            conforms(value, TABLE[spec][name], f"{path}.{name}")
        for name in REQUIRED.get(spec, ()):
            assert name in tree, f"{path}.{name} is missing"
        _rules(tree, spec, path)


def _rules(tree: Any, spec: Any, path: Any) -> None:
    if spec == "Part":
        held = [name for name in DATA if name in tree]
        assert len(held) == 1, f"{path} holds {held}: exactly one kind of data is wanted"
    elif spec == "ThinkingConfig":
        assert not ("thinkingBudget" in tree and "thinkingLevel" in tree), f"{path} has a budget and a level"
    elif spec == "FunctionCallingConfig" and "allowedFunctionNames" in tree:
        assert tree["mode"] == "ANY", f"{path}: names go with ANY only"
    elif spec == "GenerationConfig":
        assert len(tree.get("stopSequences", ())) <= 5, f"{path}: more than five stop sequences"
        assert "logprobs" not in tree or tree.get("responseLogprobs"), f"{path}: logprobs without responseLogprobs"
    elif spec == "Usage" and "totalTokenCount" in tree:
        parts = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
        assert tree["totalTokenCount"] == sum(tree.get(name, 0) for name in parts), f"{path} does not add up"
    elif spec == "Request":
        _turns(tree["contents"], path)
        assert "toolConfig" not in tree or "tools" in tree, f"{path}: toolConfig without tools"


def _turns(contents: Any, path: Any) -> None:
    """Roles alternate; responses stand first, in the content after their calls, as many as there are calls."""
    calls: list[Any] = []
    for at, content in enumerate(contents):
        where = f"{path}.contents[{at}]"
        assert at == 0 or contents[at - 1]["role"] != content["role"], f"{where}: roles do not alternate"
        responses = [part["functionResponse"]["name"] for part in content["parts"] if "functionResponse" in part]
        first = [part for part in content["parts"][: len(responses)] if "functionResponse" in part]
        assert len(first) == len(responses), f"{where}: a response after other parts"
        assert sorted(responses) == sorted(calls) or not responses, f"{where}: responses {responses} to calls {calls}"
        calls = [part["functionCall"]["name"] for part in content["parts"] if "functionCall" in part]
        assert not calls or content["role"] == "model", f"{where}: a call of the user's"
