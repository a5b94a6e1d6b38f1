"""The strict upstream's own reading: it must know a good request, and let nothing else pass for one."""

import pytest

from tests.support.strict import OddError, read_request

HOST = b"127.0.0.1:80"
GOOD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:80\r\nx-vector: 00000001\r\n"
    b"Content-Type: application/json\r\nContent-Length: 7\r\n\r\n"
    b'{"a":1}'
)
CHUNKED = GOOD.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked").replace(
    b'{"a":1}', b'7\r\n{"a":1}\r\n0\r\n\r\n'
)


@pytest.mark.parametrize("data", [GOOD, CHUNKED], ids=["length", "chunked"])
def test_a_good_request_is_read_once_it_is_whole(data: bytes) -> None:
    for at in range(len(data)):
        assert read_request(data[:at], HOST) is None
    seen = read_request(data + b"more", HOST)
    assert seen is not None
    assert (seen.mark, seen.method, seen.target) == ("00000001", b"POST", b"/v1/chat/completions")
    assert (seen.body, seen.size) == (b'{"a":1}', len(data))
    assert seen.values(b"content-type") == [b"application/json"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b" HTTP/1.1", b" HTTP/1.0"),
        (b"POST ", b"POST  "),
        (b"/v1/", b"http://a/v1/"),
        (b"/v1/", b"/v1/../"),
        (b"/v1/", b"/v1/%2E%2e/"),
        (b"\r\nHost", b"\nHost"),
        (b"\r\nHost", b"\rHost"),
        (b"Host: 127.0.0.1:80", b"Host: elsewhere"),
        (b"Host: 127.0.0.1:80\r\n", b""),
        (b"Host: 127.0.0.1:80\r\n", b"Host: 127.0.0.1:80\r\n" * 2),
        (b"x-vector:", b"x-vector :"),
        (b"x-vector:", b": b\r\nx-vector:"),
        (b"x-vector:", b" folded\r\nx-vector:"),
        (b"x-vector:", b"x-a: \x00\r\nx-vector:"),
        (b"x-vector:", b"x-a: \x1b\r\nx-vector:"),
        (b"x-vector:", b"TE: trailers\r\nx-vector:"),
        (b"x-vector:", b"Expect: 100-continue\r\nx-vector:"),
        (b"x-vector:", b"Connection: x-a\r\nx-vector:"),
        (b"x-vector:", b"Content-Encoding: gzip\r\nx-vector:"),
        (b"Content-Length: 7", b"Content-Length: 07"),
        (b"Content-Length: 7", b"Content-Length: +7"),
        (b"Content-Length: 7", b"Content-Length: 7\r\nContent-Length: 7"),
        (b"Content-Length: 7", b"Content-Length: 7\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 7", b"Transfer-Encoding: gzip, chunked"),
        (b"Content-Length: 7\r\n", b""),
        (b'{"a":1}', b'{"a":1 '),
        (b'Length: 7\r\n\r\n{"a":1}', b'Length: 13\r\n\r\n{"a":1,"a":1}'),
    ],
)
def test_what_is_odd_is_no_request(old: bytes, new: bytes) -> None:
    assert old in GOOD
    with pytest.raises(OddError):
        read_request(GOOD.replace(old, new, 1), HOST)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"7\r\n{", b"7;a=b\r\n{"),
        (b"7\r\n{", b"0x7\r\n{"),
        (b"7\r\n{", b" 7\r\n{"),
        (b"7\r\n{", b"6\r\n{"),
        (b"0\r\n\r\n", b"0\r\nx-trailer: a\r\n\r\n"),
        (b"}\r\n", b"}xx"),
    ],
)
def test_what_is_odd_in_chunks_is_no_request(old: bytes, new: bytes) -> None:
    assert old in CHUNKED
    with pytest.raises(OddError):
        read_request(CHUNKED.replace(old, new, 1), HOST)
