"""What an answer of the Gemini API rests on: pages that it cites, and how likely its tokens were.

Gemini API reference, ``GroundingMetadata`` and ``LogprobsResult``; Anthropic API reference, Messages, ``citations``;
OpenAI API reference, Chat, ``logprobs.content``.
"""

from collections.abc import Iterable

from agw_proxy.dialects.base import Tree
from agw_proxy.dialects.gemini_names import camel

PAGE = "web_search_result_location"
"""The Messages API's type of citation of a page."""


def citations_of(candidate: Tree) -> list[Tree]:
    """Pages that support the text, as the Messages API cites them. What is not well-formed is passed over.

    Which words a page supports is told by ``cited_text``; Google says it in bytes, where no other dialect counts them.
    """
    grounding = _object(candidate.get("groundingMetadata"))
    chunks = [_object(_object(chunk).get("web")) for chunk in _list(grounding.get("groundingChunks"))]
    found: list[Tree] = []
    cited: set[int] = set()
    for support in _list(grounding.get("groundingSupports")):
        supported = camel(_object(support))
        words = _object(supported.get("segment")).get("text")
        for at in _list(supported.get("groundingChunkIndices")):
            if isinstance(at, int) and 0 <= at < len(chunks):
                cited.add(at)
                found += _page(chunks[at], words if isinstance(words, str) else "")
    for at, chunk in enumerate(chunks):
        if at not in cited:
            found += _page(chunk, "")
    return found


def _page(web: Tree, words: str) -> list[Tree]:
    uri, title = web.get("uri"), web.get("title")
    if not isinstance(uri, str):
        return []
    title = title if isinstance(title, str) else ""
    return [{"type": PAGE, "url": uri, "title": title, "cited_text": words, "encrypted_index": ""}]


def grounding_of(texts: Iterable[tuple[list[Tree], int]]) -> Tree | None:
    """``groundingMetadata`` of texts that follow each other, each with its citations and its length in bytes.

    Pages only: documents of the prompt have no place in it. A citation supports the whole of its text.
    """
    chunks: list[Tree] = []
    supports: list[Tree] = []
    places: dict[str, int] = {}
    start = 0
    for citations, length in texts:
        indices: list[int] = []
        for citation in citations:
            uri, title = citation.get("url"), citation.get("title")
            if not isinstance(uri, str):
                continue
            if uri not in places:
                places[uri] = len(chunks)
                chunks.append({"web": {"uri": uri, "title": title if isinstance(title, str) else ""}})
            if places[uri] not in indices:
                indices.append(places[uri])
        if indices:
            segment = {"startIndex": start, "endIndex": start + length}
            supports.append({"segment": segment, "groundingChunkIndices": indices})
        start += length
    return {"groundingChunks": chunks, "groundingSupports": supports} if chunks else None


def logprobs_of(candidate: Tree) -> list[Tree] | None:
    """The tokens' probabilities, as Chat has them; None: there are none."""
    result = camel(_object(candidate.get("logprobsResult")))
    likeliest = _list(result.get("topCandidates"))
    made: list[Tree] = []
    for at, chosen in enumerate(_list(result.get("chosenCandidates"))):
        token = _token(chosen)
        if token is None:
            return None
        others = _list(_object(likeliest[at]).get("candidates")) if at < len(likeliest) else []
        token["top_logprobs"] = [each for each in map(_token, others) if each is not None]
        made.append(token)
    return made or None


def _token(found: object) -> Tree | None:
    tree = camel(_object(found))
    token, logprob = tree.get("token", ""), tree.get("logProbability", 0.0)
    if not isinstance(token, str) or not isinstance(logprob, int | float):
        return None
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def logprobs_result(logprobs: list[Tree]) -> Tree | None:
    """``logprobsResult`` of Chat's probabilities; None: there are none."""
    if not logprobs:
        return None
    made: Tree = {"chosenCandidates": [_candidate(each) for each in logprobs]}
    if any(each.get("top_logprobs") for each in logprobs):
        made["topCandidates"] = [_likeliest(each) for each in logprobs]
    return made


def _likeliest(token: Tree) -> Tree:
    others = [_candidate(other) for other in _list(token.get("top_logprobs"))]
    return {"candidates": others} if others else {}


def _candidate(token: object) -> Tree:
    tree = _object(token)
    return {"token": tree.get("token", ""), "logProbability": tree.get("logprob", 0.0)}


def _object(found: object) -> Tree:
    return found if isinstance(found, dict) else {}


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []
