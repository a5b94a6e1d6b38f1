# Part of peek.pyx: what a fault looks like to the caller.

cdef tuple PARAMS = (
    None, "model", "stream", "user", "tools", "functions", "max_completion_tokens", "max_output_tokens", "max_tokens",
    "stream_options", "stream_options.include_usage", "fallbacks",
)
cdef tuple WANTED = (
    "", "a string", "a boolean", "a string", "an array", "an array", "a non-negative integer below 2^63",
    "a non-negative integer below 2^63", "a non-negative integer below 2^63", "an object", "a boolean", "an array",
)
# Messages by fault: `{got}` is what stands there.
cdef dict MESSAGES = {
    EMPTY: "expected a JSON object, got an empty body",
    BOM: "expected a JSON object, got a byte order mark before it (send UTF-8 without one)",
    TOP: "expected a JSON object, got {kind}",
    NAME: "expected a member's name in double quotes, got {got}",
    COLON: "expected ':' after a member's name, got {got}",
    NEXT_MEMBER: "expected ',' or '}}' after a member, got {got}",
    NEXT_ELEMENT: "expected ',' or ']' after an element, got {got}",
    VALUE: "expected a value, got {got}{hint}",
    LITERAL: "expected true, false or null, got something else that begins with {got}",
    NUMBER: "expected a digit in a number, got {got}",
    LEADING_ZERO: "expected a number without leading zeros",
    LONG_NUMBER: f"expected a number of at most {NUMBER_CHARS} characters, got a longer one",
    UNCLOSED: "expected a closing quote, got the end of the body in a string",
    CONTROL: "expected control characters in strings to be escaped, got {got}",
    ESCAPE: "expected one of \"\\/bfnrtu after a backslash, got {got}",
    HEX: "expected four hexadecimal digits after \\u",
    SURROGATE: "expected a surrogate pair, got half of one in a name that is compared",
    UTF8: "expected UTF-8, got {got}",
    DEPTH: "expected less nesting, got more containers inside one another than allowed",
    TOO_MANY: f"expected at most {MEMBERS} members, got more",
    DUPLICATE: "expected each member once, got {name} a second time",
    TRAILING: "expected the end of the body after its object, got {got}",
    TYPE: "{param!r} must be {wanted}, got {kind}",
    COUNT: "{param!r} must be {wanted}, got {number}",
}
cdef dict KINDS = {
    b'"': "a string", b"{": "an object", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null",
}


class PeekError(ValueError):
    """The body is not acceptable JSON or a member has the wrong type: ``param`` names it."""

    def __init__(self, message, param, offset):
        super().__init__(message)
        self.param = param
        self.offset = offset


cdef str echo(const unsigned char *text, Py_ssize_t start, Py_ssize_t end):
    """A piece of the caller's text for a message: no more than ECHO_CHARS of it."""
    cdef bint cut = end - start > ECHO_CHARS * 4
    shown = (text + start)[:(start + ECHO_CHARS * 4 if cut else end) - start].decode("utf-8", "replace")
    return shown[:ECHO_CHARS] + "..." if cut or len(shown) > ECHO_CHARS else shown


cdef object fault(const unsigned char *text, Py_ssize_t size, const Seen *seen):
    """The PeekError for what ``scan`` refused."""
    cdef Py_ssize_t at = seen.fault_at, end = at
    cdef Py_ssize_t line = text[:at].count(b"\n") + 1, line_start = text[:at].rfind(b"\n") + 1
    here = text[at:at + 1]
    if at >= size:
        got = "the end of the body"
    else:
        got = repr(chr(text[at])) if 0x20 <= text[at] < 0x7F else f"byte 0x{text[at]:02x}"
    if seen.fault == DUPLICATE:
        end = at + 1
        while end < size and text[end] != b'"':
            end += 2 if text[end] == b"\\" else 1
        end = min(end, size)
    elif seen.fault == COUNT:
        while end < size and (b"0" <= text[end] <= b"9" or text[end] in b"+-.eE"):
            end += 1
    message = MESSAGES[seen.fault].format(
        got=got,
        hint=" (NaN and Infinity are not JSON)" if here in (b"N", b"I") else "",
        kind=KINDS.get(here, "a number"),
        param=PARAMS[seen.param],
        wanted=WANTED[seen.param],
        name=repr(echo(text, min(at + 1, end), end)),
        number=echo(text, at, end),
    )
    column = len(text[line_start:at].decode("utf-8", "replace")) + 1
    return PeekError(f"{message}, at byte {at} (line {line}, column {column})", PARAMS[seen.param], at)
