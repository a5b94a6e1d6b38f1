"""Annotations of a Chat answer (OpenAI API reference, Chat, "The chat completion object") and citations, one into the other.

An annotation points at a span of the answer; a citation belongs to a whole block of text. So the text is cut at the spans.
"""

from typing import Any

from agw_proxy.dialects.base import Text, Tree


def read_annotation(annotation: Any) -> tuple[int, int, Tree] | None:
    """(start, end, citation as the Messages API has it) of an annotation with a URL; None for any other."""
    inner = annotation.get("url_citation") if isinstance(annotation, dict) else None
    url = inner.get("url") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(url, str):
        return None
    title = inner.get("title")
    quoted = inner.get("content")  # OpenRouter's convention
    citation = {
        "type": "web_search_result_location",
        "url": url,
        "title": title if isinstance(title, str) else "",
        "cited_text": quoted if isinstance(quoted, str) else "",
        "encrypted_index": "",
    }
    return _place(inner.get("start_index")), _place(inner.get("end_index")), citation


def _place(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def cut(words: str, annotations: Any) -> list[Text]:
    """The answer's text in blocks, each with what it cites. A span that overlaps one before it counts from that one's end."""
    read = [read_annotation(each) for each in annotations] if isinstance(annotations, list) else []
    spans = sorted((each for each in read if each is not None), key=lambda span: span[:2])
    blocks: list[Text] = []
    at = 0
    last: tuple[int, int] | None = None
    for first, behind, citation in spans:
        if (first, behind) == last:
            blocks[-1].citations.append(citation)
            continue
        start, end = max(first, at), min(behind, len(words))
        if start >= end:
            # A place that is not there: it still says what has been read for the answer.
            if blocks:
                blocks[-1].citations.append(citation)
            continue
        if start > at:
            blocks.append(Text(words[at:start]))
        blocks.append(Text(words[start:end], citations=[citation]))
        at, last = end, (first, behind)
    if at < len(words) or not blocks:
        blocks.append(Text(words[at:]))
    return blocks


def write_annotation(citation: Tree, start: int, end: int) -> Tree | None:
    """The annotation of a span, in characters; None for a source without a URL, which Chat cannot name."""
    url = citation.get("url") or citation.get("source")
    if not isinstance(url, str) or "://" not in url:
        return None
    title = citation.get("title")
    return {
        "type": "url_citation",
        "url_citation": {
            "url": url,
            "title": title if isinstance(title, str) else "",
            "start_index": start,
            "end_index": end,
        },
    }
