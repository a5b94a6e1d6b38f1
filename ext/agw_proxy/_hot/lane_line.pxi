# Part of lane.pyx: the canonical line of an exchange that went well, written as JSON without a Receipt.
#
# It is the very line that the log makes of the Receipt. Whatever would have to be escaped is left to the log.

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    LINES_BYTES = 65536         # of lines that wait for the log
    LINE_BYTES = 4096           # room for what a line holds beside the parts that are always the same


cdef bint plain_text(const unsigned char *text, Py_ssize_t size) noexcept nogil:
    """ASCII that stands in JSON as it is."""
    cdef Py_ssize_t i
    for i in range(size):
        if not 0x20 <= text[i] <= 0x7E or text[i] == b'"' or text[i] == b"\\":
            return False
    return True


cdef int put_text(Pen *pen, bytes name, const unsigned char *text, Py_ssize_t size) except -1:
    """A member with a string; one that is not plain makes the pen overflow."""
    if not plain_text(text, size):
        pen.overflow = True
        return 0
    put_bytes(pen, name)
    put(pen, text, size)
    put(pen, <const char *>b'"', 1)
    return 0


cdef int put_str(Pen *pen, bytes name, str text) except -1:
    """Likewise; nothing for None."""
    cdef Py_ssize_t size
    cdef const char *data
    if text is not None:
        data = PyUnicode_AsUTF8AndSize(text, &size)
        put_text(pen, name, <const unsigned char *>data, size)
    return 0


cdef void put_ms(Pen *pen, int64_t microseconds) noexcept nogil:
    """Milliseconds as the log writes a float: as many decimals as it takes, but one."""
    put_thousandths(pen, microseconds, True)
    if microseconds % 1000 == 0:
        put(pen, <const char *>b".0", 2)


cdef void put_member(Pen *pen, bytes name, int64_t number):
    put_bytes(pen, name)
    put_number(pen, number)


cdef int write_line(
    Downstream d, uint64_t now, int64_t duration, int64_t own, int64_t ttft, int64_t gap, long long *usage
) except -1:
    """1: the line is among those that wait for the log. ``usage``: prompt, completion and cached tokens, cost."""
    cdef Lane lane = d.lane
    cdef Way way = d.way
    cdef Pen pen
    cdef unsigned char[24] time
    if way.line_opening is None:
        way.line_opening, way.line_closing = lane.shell.line_parts(
            way.door.name, way.route.name, way.route.label, way.origin.name, way.target.name, way.trail)
    if lane.line_count and lane.lines_size + LINE_BYTES + PyBytes_GET_SIZE(way.line_closing) > LINES_BYTES:
        lane.hand_out()
    pen.at = lane.lines + lane.lines_size
    pen.end = lane.lines + LINES_BYTES
    pen.overflow = False
    stamp_into(lane, now, time)
    put_bytes(&pen, b'{"event":"request","time":"')
    put(&pen, time, 24)
    put_bytes(&pen, b'","request_id":"')
    put_bytes(&pen, d.request_id)
    put_bytes(&pen, way.line_opening)
    put_ms(&pen, rounded(duration))
    put_member(&pen, b',"overhead_us":', own // 1000)
    put_str(&pen, b',"key":"', d.caller.name)
    put_str(&pen, b',"user":"', d.user)
    put_str(&pen, b',"channel":"', d.channel)
    put_str(&pen, b',"trace_id":"', d.trace_id)
    put_bytes(&pen, way.line_closing)
    if d.wants_stream:
        put_bytes(&pen, b',"stream":true')
    if ttft >= 0:
        put_bytes(&pen, b',"ttft_ms":')
        put_ms(&pen, rounded(ttft))
    if gap >= 0:
        put_bytes(&pen, b',"inter_token_ms":')
        put_ms(&pen, rounded(gap))
    if d.stream is not None:
        put_str(&pen, b',"finish_reason":"', d.stream.finish_reason)
    elif d.document is not None and d.document._json.reason_size:
        put_text(&pen, b',"finish_reason":"', d.document._json.reason, d.document._json.reason_size)
    if usage[0] >= 0:
        put_member(&pen, b',"prompt_tokens":', usage[0])
    if usage[1] >= 0:
        put_member(&pen, b',"completion_tokens":', usage[1])
    if usage[2] >= 0:
        put_member(&pen, b',"cached_tokens":', usage[2])
    if d.bytes_out:
        put_member(&pen, b',"bytes_out":', d.bytes_out)
    if d.address:
        put_str(&pen, b',"peer":"', d.address)
    if usage[3] >= 0:
        put_member(&pen, b',"cost":', usage[3])
    put_str(&pen, b',"team":"', d.caller.team_name)
    if d.session_subject:
        put_str(&pen, b',"session":"', session_text(d))
    put(&pen, <const char *>b"}\n", 2)
    if pen.overflow:
        return 0
    if lane.ring:
        lane.hand_out()             # lines keep their order
    lane.lines_size = pen.at - lane.lines
    lane.line_count += 1
    return 1
