# Part of http1.pyx: what a verdict looks like to the caller.

cdef struct Meaning:
    int status              # to refuse with; 0: it hands over
    const char *name
    const char *text

cdef Meaning MEANINGS[REASONS]


cdef void mean(int reason, int status, const char *name, const char *text) noexcept:
    MEANINGS[reason].status = status
    MEANINGS[reason].name = name
    MEANINGS[reason].text = text


cdef void fill_meanings():
    mean(NO_REASON, 0, b"", b"")
    mean(BARE_LF, 400, b"bare_lf", b"expected lines to end with CR LF, got LF alone")
    mean(BARE_CR, 400, b"bare_cr", b"expected LF after CR, got another byte")
    mean(CONTROL_BYTE, 400, b"control_byte", b"expected text, got a control character")
    mean(BAD_METHOD, 400, b"bad_method", b"expected a method and a space, got a byte that no method has")
    mean(BAD_REQUEST_LINE, 400, b"bad_request_line",
         b"expected method, target and HTTP version with one space between them, got something else")
    mean(BAD_TARGET, 400, b"bad_target",
         b"expected a path, or an http or https URL with a valid host, without '#' or spaces, got something else")
    mean(USERINFO, 400, b"userinfo", b"expected a target without user information, got an '@' in its authority")
    mean(CONNECT_REFUSED, 400, b"connect", b"expected a request for a resource, got CONNECT (this is no tunnel)")
    mean(BAD_VERSION, 400, b"bad_version", b"expected HTTP/1.1, got something that is no HTTP version")
    mean(UNKNOWN_VERSION, 505, b"unknown_version", b"expected HTTP/1.1 or HTTP/1.0, got another version")
    mean(BAD_STATUS_LINE, 400, b"bad_status_line", b"expected HTTP version, status and reason, got something else")
    mean(BAD_STATUS, 400, b"bad_status", b"expected a status from 100 to 599, got something else")
    mean(LONG_REQUEST_LINE, 414, b"long_request_line", b"expected a shorter request line, got one over the bound")
    mean(LONG_FIELD, 431, b"long_field", b"expected shorter header fields, got one over the bound")
    mean(LARGE_HEAD, 431, b"large_head", b"expected smaller headers, got more bytes of them than allowed")
    mean(MANY_FIELDS, 431, b"many_fields", b"expected at most 100 header fields, got more")
    mean(OBS_FOLD, 400, b"obs_fold", b"expected a header field, got a line that begins with white space")
    mean(SPACE_BEFORE_COLON, 400, b"space_before_colon",
         b"expected ':' right after a header field's name, got white space")
    mean(BAD_NAME, 400, b"bad_name", b"expected a header field's name and ':', got a byte that no name has")
    mean(NO_HOST, 400, b"no_host", b"expected a Host header, got none")
    mean(BAD_HOST, 400, b"bad_host", b"expected host[:port] in the Host header, got something else")
    mean(REPEATED_FIELD, 400, b"repeated_field", b"expected a header field once that came twice")
    mean(BAD_LENGTH, 400, b"bad_length",
         b"expected a number below 2^63 in digits as Content-Length, got something else")
    mean(LENGTH_AND_CODING, 400, b"length_and_coding",
         b"expected Content-Length or Transfer-Encoding, got both")
    mean(CODING_IN_1_0, 400, b"coding_in_1_0", b"expected no Transfer-Encoding in HTTP/1.0, got one")
    mean(BAD_CODING, 400, b"bad_coding", b"expected 'chunked' as Transfer-Encoding, got something else")
    mean(UNKNOWN_CODING, 501, b"unknown_coding",
         b"expected 'chunked' alone as Transfer-Encoding, got another coding before it")
    mean(BAD_CONNECTION, 400, b"bad_connection", b"expected tokens in the Connection header, got something else")
    mean(UNKNOWN_EXPECTATION, 417, b"unknown_expectation", b"expected 100-continue in Expect, got something else")
    mean(HTTP_1_0, 0, b"http_1_0", b"HTTP/1.0")
    mean(ABSOLUTE_FORM, 0, b"absolute_form", b"the target is a whole URL")
    mean(ASTERISK_FORM, 0, b"asterisk_form", b"the target is '*'")
    mean(EMPTY_HOST, 0, b"empty_host", b"the Host header has no host")
    mean(CHUNKED_BODY, 0, b"chunked_body", b"the body is chunked")
    mean(CONTINUE_EXPECTED, 0, b"continue_expected", b"Expect: 100-continue")
    mean(UPGRADE_OFFERED, 0, b"upgrade_offered", b"another protocol is offered")
    mean(CONNECTION_OPTION, 0, b"connection_option", b"Connection says more than close or keep-alive")
    mean(TRAILERS_OFFERED, 0, b"trailers_offered", b"a TE or Trailer header")
    mean(SEVERAL_CODINGS, 0, b"several_codings", b"more than one Content-Encoding header")


fill_meanings()


cdef inline const Meaning *meaning(int reason) noexcept nogil:
    return &MEANINGS[reason if 0 <= reason < REASONS else NO_REASON]


cdef int refusal_status(int reason) noexcept nogil:
    return meaning(reason).status


cdef const char *reason_text(int reason) noexcept nogil:
    return meaning(reason).text


cdef const char *reason_name(int reason) noexcept nogil:
    return meaning(reason).name
