/* Sends one request over and over, and measures and checks the answers.
 *
 *     load --port N --request FILE [--connections N] [--measure-ms N] [--warmup-ms N] [--ramp-ms N]
 *          [--rate N] [--events N] [--least-bytes N]
 *
 * FILE holds the bytes of a whole request. Without --rate each connection sends the next request when it has its answer
 * (closed loop). With it, requests are due at fixed times (open loop), wait for a free connection where there is none,
 * and their latency counts from when they were due. With --events the answers are streams of that many events as
 * upstream.c sends them; else each body must have at least --least-bytes and end in "}".
 *
 * Connections open over --ramp-ms; the figures are of what happens in the --measure-ms that follow the first --warmup-ms. Prints
 * a line "start" and a line "end" at these points (so that the caller can account the proxy's CPU), then one line of
 * JSON: counts, errors by kind, and percentiles in microseconds.
 *
 * latency: a whole JSON answer. ttft: the first event, from the request. delay: each event, from its time stamp at the
 * upstream to here, so the way through the proxy. gap: how much further apart than there
 * two events of a stream arrive here (0 where they come closer).
 */
#include <arpa/inet.h>

#include "answer.h"
#include "histogram.h"
#include "queue.h"

#define READ_BYTES 262144
#define LINE_BYTES 4096 /* of one event's line; a longer one is an error */
#define RETRY_NS 10000000ull /* after a failure, so that a dead proxy does not make a busy loop */
#define STAMP_DIGITS 19

enum failure { CONNECT, STATUS, MALFORMED_ANSWER, CUT, SHORT, NO_END, FAILURES };
static const char *const failure_names[FAILURES] = {"connect", "status", "malformed", "cut", "short", "no_end"};

struct connection {
    int fd;
    enum { CLOSED, CONNECTING, IDLE, SENDING, READING } state;
    uint64_t begun;      /* ns: when the request was sent, or was due */
    uint64_t last_event; /* ns: here; 0 before the first */
    uint64_t last_stamp; /* ns: at the upstream */
    uint32_t sequence;   /* the next event's expected number */
    uint32_t missing, line_bytes, sent;
    bool done;           /* [DONE] has come */
    char last;           /* the body's last byte that is no space */
    char line[LINE_BYTES];
    struct answer answer;
};

static struct {
    uint64_t requests, streams, events, missing, bytes, reconnects, late;
    uint64_t failures[FAILURES];
    int last_status;
    struct histogram latency, ttft, delay, gap;
} seen;

static struct connection *connections;
static struct queue retries;
static int owners[MAX_FDS]; /* descriptor -> connection */
static int *idle, epoll;
static uint64_t idle_count, connection_count = 1, rate, events_a_stream, least_bytes, received_at;
static uint64_t first_due, scheduled; /* open loop: when request 0 is due, and how many have been taken */
static bool measuring;
static uint64_t warmup_failures;
static struct sockaddr_in target = {.sin_family = AF_INET};
static char *request;
static uint32_t request_bytes;

static void send_request(int index, uint64_t begun);

static void fail(int index, enum failure kind) {
    struct connection *connection = &connections[index];
    seen.failures[kind]++;
    if (connection->fd >= 0) {
        close(connection->fd);
    }
    connection->fd = -1;
    connection->state = CLOSED;
    push(&retries, index, 0, now_ns() + RETRY_NS);
}

static uint64_t due_at(uint64_t nth) { return first_due + (uint64_t)((__uint128_t)nth * SECOND_NS / rate); }

/* A connection is free: it sends at once (closed loop), or what is due, or waits for that. */
static void become_idle(int index) {
    connections[index].state = IDLE;
    if (!rate) {
        send_request(index, now_ns());
    } else if (due_at(scheduled) <= now_ns()) {
        seen.late++;
        send_request(index, due_at(scheduled++));
    } else {
        idle[idle_count++] = index;
    }
}

static void send_request(int index, uint64_t begun) {
    struct connection *connection = &connections[index];
    connection->begun = begun;
    connection->last_event = 0;
    connection->sequence = connection->missing = connection->line_bytes = connection->sent = 0;
    connection->done = false;
    connection->last = 0;
    begin_answer(&connection->answer);
    ssize_t sent = send(connection->fd, request, request_bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        fail(index, CUT);
        return;
    }
    connection->sent = sent > 0 ? (uint32_t)sent : 0;
    connection->state = connection->sent == request_bytes ? READING : SENDING;
    if (connection->state == SENDING) {
        watch(epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLOUT);
    }
}

static void open_connection(int index) {
    struct connection *connection = &connections[index];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    connection->fd = fd;
    if (fd < 0 || fd >= MAX_FDS) {
        fail(index, CONNECT);
        return;
    }
    without_delay(fd);
    owners[fd] = index;
    if (connect(fd, (struct sockaddr *)&target, sizeof target) != 0 && errno != EINPROGRESS) {
        fail(index, CONNECT);
        return;
    }
    connection->state = CONNECTING;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLOUT);
}

static void on_writable(int index) {
    struct connection *connection = &connections[index];
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            fail(index, CONNECT);
            return;
        }
        watch(epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN);
        become_idle(index);
    } else if (connection->state == SENDING) {
        ssize_t sent = send(connection->fd, request + connection->sent, request_bytes - connection->sent, MSG_NOSIGNAL);
        connection->sent += sent > 0 ? (uint32_t)sent : 0;
        if (connection->sent == request_bytes) {
            connection->state = READING;
            watch(epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN);
        }
    }
}

/* One line of a stream, without its end. */
static void take_line(struct connection *connection, const char *line, size_t bytes) {
    if (bytes >= 12 && memcmp(line, "data: [DONE]", 12) == 0) {
        connection->done = true;
        return;
    }
    const char *at = memchr(line, '@', bytes);
    if (!at || bytes - (size_t)(at - line) < STAMP_DIGITS + 2) {
        return;
    }
    uint64_t stamp = strtoull(at + 1, NULL, 10);
    uint32_t sequence = (uint32_t)strtoul(at + STAMP_DIGITS + 2, NULL, 10);
    if (sequence != connection->sequence) { /* some are absent; or one came late or twice, which counts as one */
        connection->missing += sequence > connection->sequence ? sequence - connection->sequence : 1;
    }
    connection->sequence = sequence + 1;
    seen.events++;
    record(&seen.delay, received_at > stamp ? received_at - stamp : 0);
    if (connection->last_event) {
        uint64_t here = received_at - connection->last_event, there = stamp - connection->last_stamp;
        record(&seen.gap, here > there ? here - there : 0);
    } else {
        record(&seen.ttft, received_at - connection->begun);
    }
    connection->last_event = received_at;
    connection->last_stamp = stamp;
}

/* A part of a body: the lines of a stream, or just its end. */
static void take_body(void *context, const char *data, size_t bytes) {
    struct connection *connection = context;
    const char *end = data + bytes;
    if (!events_a_stream) {
        while (bytes && (data[bytes - 1] == '\n' || data[bytes - 1] == ' ')) {
            bytes--;
        }
        connection->last = bytes ? data[bytes - 1] : connection->last;
        return;
    }
    while (data < end) {
        const char *stop = memchr(data, '\n', (size_t)(end - data));
        size_t part = (size_t)((stop ? stop : end) - data);
        if (stop && !connection->line_bytes) {
            take_line(connection, data, part);
        } else if (connection->line_bytes + part < LINE_BYTES) {
            memcpy(connection->line + connection->line_bytes, data, part);
            connection->line_bytes += (uint32_t)part;
            connection->line[connection->line_bytes] = '\0';
            if (stop) {
                take_line(connection, connection->line, connection->line_bytes);
                connection->line_bytes = 0;
            }
        } else {
            connection->answer.phase = MALFORMED;
            return;
        }
        data += part + (stop != NULL);
    }
}

/* The answer is all here: judge it, and go on. */
static void finish(int index) {
    struct connection *connection = &connections[index];
    struct answer *answer = &connection->answer;
    if (answer->status != 200) {
        seen.last_status = answer->status;
        fail(index, STATUS);
        return;
    }
    if (events_a_stream) {
        seen.streams++;
        seen.missing += connection->missing + ((uint32_t)events_a_stream - connection->sequence);
        if (!connection->done) {
            fail(index, NO_END);
            return;
        }
    } else if (!answer->encoded && (answer->body_bytes < least_bytes || connection->last != '}')) {
        fail(index, SHORT);
        return;
    } else {
        record(&seen.latency, received_at - connection->begun);
    }
    seen.requests++;
    if (answer->close) {
        seen.reconnects++;
        close(connection->fd);
        open_connection(index);
    } else {
        become_idle(index);
    }
}

/* The other side has ended the connection, in order or not. */
static void on_end(int index, bool orderly) {
    struct connection *connection = &connections[index];
    if (connection->state == IDLE) { /* no failure: nothing was asked */
        for (uint64_t i = 0; i < idle_count; i++) {
            if (idle[i] == index) {
                idle[i] = idle[--idle_count];
                break;
            }
        }
        seen.reconnects++;
        close(connection->fd);
        open_connection(index);
    } else if (orderly && connection->state == READING && connection->answer.phase == UNTIL_CLOSE) {
        connection->answer.close = true;
        finish(index);
    } else {
        fail(index, CUT);
    }
}

static void on_readable(int index) {
    static char buffer[READ_BYTES + 1];
    struct connection *connection = &connections[index];
    ssize_t got = recv(connection->fd, buffer, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    received_at = now_ns();
    if (got <= 0) {
        on_end(index, got == 0);
        return;
    }
    buffer[got] = '\0';
    seen.bytes += (uint64_t)got;
    size_t used = feed_answer(&connection->answer, buffer, (size_t)got, take_body, connection);
    if (connection->answer.phase == MALFORMED || used != (size_t)got) {
        fail(index, MALFORMED_ANSWER);
    } else if (connection->answer.phase == COMPLETE) {
        finish(index);
    }
}

static void print_results(double seconds) {
    printf("{\"seconds\": %.6f, \"connections\": %lu, \"requests\": %lu, \"streams\": %lu, \"events\": %lu, \"missing\": %lu, "
           "\"bytes\": %lu, \"reconnects\": %lu, \"late\": %lu, \"warmup_errors\": %lu, \"last_status\": %d, \"errors\": {",
           seconds, connection_count, seen.requests, seen.streams, seen.events, seen.missing, seen.bytes, seen.reconnects,
           seen.late, warmup_failures, seen.last_status);
    for (int kind = 0; kind < FAILURES; kind++) {
        printf("%s\"%s\": %lu", kind ? ", " : "", failure_names[kind], seen.failures[kind]);
    }
    printf("}");
    print_histogram("latency", &seen.latency);
    print_histogram("ttft", &seen.ttft);
    print_histogram("delay", &seen.delay);
    print_histogram("gap", &seen.gap);
    printf("}\n");
}

/* Everything that falls due by itself. Gives when the next does. */
static uint64_t do_what_is_due(uint64_t *opened, uint64_t begun, uint64_t ramp_ns) {
    uint64_t now = now_ns(), next = NEVER;
    while (*opened < connection_count && (next = begun + ramp_ns * *opened / connection_count) <= now) {
        open_connection((int)(*opened)++);
    }
    next = *opened < connection_count ? next : NEVER;
    while (next_due(&retries) <= now) {
        open_connection((int)pop(&retries).fd);
    }
    while (rate && idle_count && due_at(scheduled) <= now) {
        send_request(idle[--idle_count], due_at(scheduled));
        scheduled++;
    }
    if (rate && idle_count && due_at(scheduled) < next) {
        next = due_at(scheduled);
    }
    return next_due(&retries) < next ? next_due(&retries) : next;
}

static void run(uint64_t ramp_ns, uint64_t warmup_ns, uint64_t measured_ns) {
    static struct epoll_event found[512];
    uint64_t begun = now_ns(), start = begun + warmup_ns, end = start + measured_ns, opened = 0;
    first_due = begun + ramp_ns;
    for (uint64_t now = begun; now < end; now = now_ns()) {
        if (!measuring && now >= start) {
            for (int kind = 0; kind < FAILURES; kind++) {
                warmup_failures += seen.failures[kind];
            }
            memset(&seen, 0, sizeof seen);
            measuring = true;
            start = now;
            end = start + measured_ns;
            puts("start");
            fflush(stdout);
        }
        uint64_t until = do_what_is_due(&opened, begun, ramp_ns), mark = measuring ? end : start;
        int count = wait_until(epoll, found, 512, until < mark ? until : mark);
        for (int i = 0; i < count; i++) {
            int index = owners[found[i].data.fd];
            if (connections[index].fd != found[i].data.fd) {
                continue; /* closed by an earlier event of this turn */
            }
            if (found[i].events & EPOLLOUT || connections[index].state == CONNECTING) {
                on_writable(index);
            } else {
                on_readable(index);
            }
        }
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    puts("end");
    fflush(stdout);
    print_results(seconds);
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    request = malloc(1 << 20);
    if (!file || (request_bytes = (uint32_t)fread(request, 1, 1 << 20, file)) == 0) {
        fprintf(stderr, "--request: %s cannot be read, or is empty\n", path);
        exit(2);
    }
    fclose(file);
}

int main(int argc, char **argv) {
    uint64_t port = 0, measured_ms = 1000, warmup_ms = 200, ramp_ms = 0;
    struct { const char *name; uint64_t *value; } options[] = {
        {"--port", &port}, {"--connections", &connection_count}, {"--measure-ms", &measured_ms}, {"--warmup-ms", &warmup_ms},
        {"--ramp-ms", &ramp_ms}, {"--rate", &rate}, {"--events", &events_a_stream}, {"--least-bytes", &least_bytes}};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--request") == 0) read_request(argv[i + 1]);
        for (size_t option = 0; option < sizeof options / sizeof *options; option++) {
            if (strcmp(argv[i], options[option].name) == 0) {
                *options[option].value = number(argv[i], argv[i + 1]);
            }
        }
    }
    if (!request || !port || !connection_count || connection_count >= MAX_FDS) {
        fprintf(stderr, "usage: load --port N --request FILE [--connections N] [--measure-ms N] [--warmup-ms N] [--ramp-ms N]\n"
                        "            [--rate N] [--events N] [--least-bytes N]\n");
        return 2;
    }
    prepare_process();
    target.sin_port = htons((uint16_t)port);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connections = calloc(connection_count, sizeof *connections);
    idle = calloc(connection_count, sizeof *idle);
    for (uint64_t i = 0; connections && i < connection_count; i++) {
        connections[i].fd = -1;
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    run(ramp_ms * 1000000, warmup_ms * 1000000, measured_ms * 1000000);
    return 0;
}
