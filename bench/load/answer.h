/* Reads an HTTP/1.1 answer as its bytes come: head, then the body by length, in chunks, or until the close. */
#ifndef AGW_BENCH_ANSWER_H
#define AGW_BENCH_ANSWER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAD_BYTES 8192
#define SIZE_LINE_BYTES 64

enum phase { HEAD, BY_LENGTH, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILER, UNTIL_CLOSE, COMPLETE, MALFORMED };

struct answer {
    enum phase phase;
    int status;
    bool encoded;         /* its body is compressed, so that neither its size nor its end tells anything */
    bool close;           /* the connection ends with this answer */
    uint64_t left;        /* of the body, or of the chunk */
    uint64_t body_bytes;  /* so far */
    uint32_t held;        /* bytes in `head` */
    char head[HEAD_BYTES]; /* of the head, then of a chunk's size line or of the trailer */
};

typedef void (*body_sink)(void *context, const char *data, size_t bytes);

static inline void begin_answer(struct answer *answer) {
    answer->phase = HEAD;
    answer->status = 0;
    answer->close = answer->encoded = false;
    answer->left = answer->body_bytes = 0;
    answer->held = 0;
}

/* Takes the held head apart (`bytes` with its empty line). */
static inline void read_head(struct answer *answer, size_t bytes) {
    const char *head = answer->head, *end = head + bytes - 2;
    bool length = false, chunked = false;
    if (bytes < 16 || memcmp(head, "HTTP/1.", 7) != 0) {
        answer->phase = MALFORMED;
        return;
    }
    answer->status = atoi(head + 9);
    for (const char *line = memchr(head, '\n', bytes); line && ++line < end; line = memchr(line, '\n', (size_t)(end - line))) {
        if (strncasecmp(line, "content-length:", 15) == 0) {
            length = true;
            answer->left = strtoull(line + 15, NULL, 10);
        } else if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) {
            chunked = true;
        } else if (strncasecmp(line, "content-encoding:", 17) == 0) {
            answer->encoded = true;
        } else if (strncasecmp(line, "connection: close", 17) == 0) {
            answer->close = true;
        }
    }
    answer->held = 0;
    if (answer->status >= 100 && answer->status < 200) {
        begin_answer(answer);
    } else if (chunked) {
        answer->phase = CHUNK_LINE;
    } else if (length) {
        answer->phase = answer->left ? BY_LENGTH : COMPLETE;
    } else {
        answer->phase = UNTIL_CLOSE;
    }
}

/* Holds bytes up to and with `mark`. Gives how many of `data` were used; *whole says whether the mark came. */
static inline size_t hold_until(struct answer *answer, const char *data, size_t bytes, const char *mark, size_t most, bool *whole) {
    size_t mark_bytes = strlen(mark), before = answer->held;
    size_t room = most - before, used = bytes < room ? bytes : room;
    memcpy(answer->head + before, data, used);
    size_t from = before >= mark_bytes ? before - mark_bytes + 1 : 0;
    const char *found = memmem(answer->head + from, before + used - from, mark, mark_bytes);
    *whole = found != NULL;
    if (found) {
        answer->held = (uint32_t)(found + mark_bytes - answer->head);
        return answer->held - before;
    }
    answer->held = (uint32_t)(before + used);
    if (answer->held == most) {
        answer->phase = MALFORMED;
    }
    return used;
}

static inline void read_size(struct answer *answer) {
    char *end = NULL;
    answer->left = strtoull(answer->head, &end, 16);
    bool valid = end != answer->head && (*end == '\r' || *end == ';' || *end == ' ');
    answer->phase = !valid ? MALFORMED : answer->left ? CHUNK_DATA : TRAILER;
    answer->held = 0;
}

/* Feeds bytes; the body's go to `sink`. Gives how many were used: fewer than `bytes` only at COMPLETE or MALFORMED. */
static inline size_t feed_answer(struct answer *answer, const char *data, size_t bytes, body_sink sink, void *context) {
    size_t at = 0;
    bool whole;
    while (at < bytes && answer->phase < COMPLETE) {
        size_t there = bytes - at;
        switch (answer->phase) {
        case HEAD:
            at += hold_until(answer, data + at, there, "\r\n\r\n", HEAD_BYTES, &whole);
            if (whole) {
                read_head(answer, answer->held);
            }
            break;
        case CHUNK_LINE:
            at += hold_until(answer, data + at, there, "\r\n", SIZE_LINE_BYTES, &whole);
            if (whole) {
                read_size(answer);
            }
            break;
        case TRAILER: /* fields, each a line; an empty one ends them */
            at += hold_until(answer, data + at, there, "\r\n", HEAD_BYTES, &whole);
            if (whole) {
                answer->phase = answer->held == 2 ? COMPLETE : TRAILER;
                answer->held = 0;
            }
            break;
        case CHUNK_END:
            at += hold_until(answer, data + at, there, "\r\n", SIZE_LINE_BYTES, &whole);
            if (whole) {
                answer->phase = answer->held == 2 ? CHUNK_LINE : MALFORMED;
                answer->held = 0;
            }
            break;
        default: { /* a body's bytes */
            size_t taken = answer->phase != UNTIL_CLOSE && answer->left < there ? (size_t)answer->left : there;
            answer->body_bytes += taken;
            sink(context, data + at, taken);
            at += taken;
            if (answer->phase != UNTIL_CLOSE && (answer->left -= taken) == 0) {
                answer->phase = answer->phase == BY_LENGTH ? COMPLETE : CHUNK_END;
            }
        }
        }
    }
    return at;
}

#endif
