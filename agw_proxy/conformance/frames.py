"""Server-sent events out of lines (WHATWG HTML, section 9.2.6), for a reader that has the bytes line by line."""

from collections.abc import Iterable, Iterator

from agw_proxy.conformance.base import Frame


def events(lines: Iterable[bytes]) -> Iterator[Frame]:
    """Give each event as it is whole. ``lines`` end in LF or CRLF; comments and other fields are passed over.

    An event whose blank line is missing is none, as the specification says.
    """
    name, data = "", list[bytes]()
    for line in lines:
        text = line.rstrip(b"\r\n")
        if not text:
            if data:
                yield name, b"\n".join(data)
            name, data = "", []
            continue
        field, _, value = text.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
