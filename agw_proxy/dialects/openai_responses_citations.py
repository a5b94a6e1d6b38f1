"""Annotations of words, as Responses has them, and citations, as the Messages API has them: one into the other.

OpenAI API reference, Responses, ``output_text.annotations``; Anthropic API reference, Messages, ``citations``.
Both also name documents by where they stood in the request: that is said by index and title, which is all that both know.
"""

from agw_proxy.dialects.base import Tree


def citations_of(annotations: object) -> list[Tree]:
    """Of all annotations that name a source; whatever else is there is passed over."""
    if not isinstance(annotations, list):
        return []
    found = [citation_of(each) for each in annotations]
    return [each for each in found if each is not None]


def citation_of(annotation: object) -> Tree | None:
    """A page on the web, or a file; None: neither."""
    if not isinstance(annotation, dict):
        return None
    kind = annotation.get("type")
    if kind == "url_citation" and isinstance(annotation.get("url"), str):
        return {
            "type": "web_search_result_location",
            "url": annotation["url"],
            "title": _words(annotation, "title"),
            "cited_text": "",
            "encrypted_index": "",
        }
    if kind in ("file_citation", "container_file_citation"):  # of unknown type: a set would have to hash it
        return {
            "type": "char_location",
            "cited_text": "",
            "document_index": _count(annotation, "index"),
            "document_title": _words(annotation, "filename"),
            "start_char_index": 0,
            "end_char_index": 0,
            "file_id": _words(annotation, "file_id"),
        }
    return None


def annotation_of(citation: Tree, start: int, end: int) -> Tree:
    """``start``, ``end``: the words of the text that cite, in characters."""
    url = citation.get("url") or citation.get("source")
    if isinstance(url, str) and "://" in url:
        return {
            "type": "url_citation",
            "url": url,
            "title": _words(citation, "title"),
            "start_index": start,
            "end_index": end,
        }
    return {
        "type": "file_citation",
        "file_id": _words(citation, "file_id"),
        "filename": _words(citation, "document_title") or _words(citation, "title") or _words(citation, "source"),
        "index": _count(citation, "document_index"),
    }


def _words(tree: Tree, name: str) -> str:
    found = tree.get(name)
    return found if isinstance(found, str) else ""


def _count(tree: Tree, name: str) -> int:
    found = tree.get(name)
    return found if type(found) is int else 0
