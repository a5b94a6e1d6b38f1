"""Words that came from outside, fit for messages and logs."""


def printable(text: str) -> str:
    """The text with control characters and lone surrogates spelt out: callers' words come back in messages and logs."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )
