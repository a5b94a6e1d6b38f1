/* A mock of a model's API: POST /v1/chat/completions as JSON or as a paced stream of events, and GET /v1/models.
 *
 *     upstream [--port N] [--pace-us N] [--events N]
 *
 * Prints "ready PORT". `GET /control/PACE_US/EVENTS` sets the pace and length of streams that begin later, so that the
 * connections that a proxy holds to it outlive a change. SIGTERM prints what was served as one JSON line, and ends.
 *
 * Every event of a stream carries "@NANOSECONDS.SEQUENCE" in its content: CLOCK_MONOTONIC at the moment it was written.
 * The first goes out with the head, the next ones each PACE_US later (0: as fast as the socket takes them); with the
 * last come finish_reason, the usage (if asked for), [DONE] and the last chunk.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <strings.h>

#include "queue.h"

#define READ_BYTES 262144
#define REQUEST_BYTES (1u << 20) /* the largest request; a longer one loses its connection */
#define EVENTS_A_TURN 256        /* due events between two looks at the sockets */
#define STREAM_HEAD                                                                                      \
    "HTTP/1.1 200 OK\r\nDate: Mon, 02 Nov 2026 09:00:00 GMT\r\nContent-Type: text/event-stream; charset=utf-8\r\n" \
    "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n"                 \
    "openai-organization: bench\r\nopenai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\n"           \
    "x-request-id: req_5f0c2a71e94b4d0f8a6b3c1d2e4f5a6b\r\n\r\n"
#define JSON_HEAD                                                                                        \
    "HTTP/1.1 %s\r\nDate: Mon, 02 Nov 2026 09:00:00 GMT\r\nContent-Type: application/json\r\n"            \
    "Content-Length: %zu\r\nConnection: keep-alive\r\nopenai-organization: bench\r\nopenai-processing-ms: 12\r\n" \
    "openai-version: 2020-10-01\r\nx-request-id: req_5f0c2a71e94b4d0f8a6b3c1d2e4f5a6b\r\n\r\n%s"
#define ANSWER                                                                                           \
    "{\"id\":\"chatcmpl-Bx7kQ2mVfT1\",\"object\":\"chat.completion\",\"created\":1780000000,\"model\":\"gpt-4o-mini\"," \
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A token bucket refills at a steady " \
    "rate and is emptied by what passes. As long as it holds enough, a request goes through at once; when it is empty, " \
    "the caller waits or is refused. Its size is the burst that you allow.\",\"refusal\":null},\"logprobs\":null," \
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":340,\"completion_tokens\":51,\"total_tokens\":391}," \
    "\"system_fingerprint\":\"fp_44709d6fcb\"}"
#define CHUNK_START "{\"id\":\"chatcmpl-Bx7kQ2mVfT1\",\"object\":\"chat.completion.chunk\",\"created\":1780000000,\"model\":\"gpt-4o-mini\","
#define EVENT \
    "data: " CHUNK_START "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@0000000000000000000.000000 \"},\"finish_reason\":null}]}\n\n"
#define FINISH "data: " CHUNK_START "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE \
    "data: " CHUNK_START "\"choices\":[],\"usage\":{\"prompt_tokens\":340,\"completion_tokens\":100,\"total_tokens\":440}}\n\n"
#define DONE "data: [DONE]\n\n"
#define MODELS "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o-mini\",\"object\":\"model\",\"created\":1780000000,\"owned_by\":\"bench\"}]}"
#define STAMP_DIGITS 19
#define SEQUENCE_DIGITS 6

struct connection {
    bool open, streaming, starved, usage, watched_for_writing;
    uint32_t born, sequence, events;
    uint64_t due, pace_ns;
    char *in, *out; /* an unfinished request; what the socket did not take. NULL: nothing */
    size_t in_bytes, out_bytes;
};

static struct connection table[MAX_FDS];
static struct queue paced;
static int epoll, listener;
static uint64_t pace_ns, events_a_stream = 100;
static char json[2048], models[1024], control[512], event[512], finish[2048], finish_usage[2048];
static size_t json_bytes, event_bytes, finish_bytes, finish_usage_bytes, stamp_at;
static struct { uint64_t requests, streams, finished, cancelled, events, refused; } served;
static volatile sig_atomic_t ended;

static void on_signal(int signal_number) { (void)signal_number; ended = 1; }

static void close_connection(int fd) {
    struct connection *connection = &table[fd];
    served.cancelled += connection->streaming;
    free(connection->in);
    free(connection->out);
    uint32_t born = connection->born + 1;
    memset(connection, 0, sizeof *connection);
    connection->born = born;
    close(fd);
}

/* Writes, and keeps what the socket does not take. Gives whether the connection is still open. */
static bool send_bytes(int fd, const char *data, size_t bytes) {
    struct connection *connection = &table[fd];
    ssize_t sent = connection->out_bytes ? 0 : send(fd, data, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        close_connection(fd);
        return false;
    }
    size_t left = bytes - (size_t)(sent < 0 ? 0 : sent);
    if (left) {
        connection->out = realloc(connection->out, connection->out_bytes + left);
        memcpy(connection->out + connection->out_bytes, data + bytes - left, left);
        connection->out_bytes += left;
        if (!connection->watched_for_writing) {
            watch(epoll, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
            connection->watched_for_writing = true;
        }
    }
    return true;
}

static void put_digits(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value /= 10) {
        at[i] = (char)('0' + value % 10);
    }
}

/* Writes the stream's next event, with the head before the first and the end behind the last. */
static void send_event(int fd) {
    struct connection *connection = &table[fd];
    char block[4096];
    size_t bytes = 0;
    if (connection->sequence == 0) {
        memcpy(block, STREAM_HEAD, sizeof STREAM_HEAD - 1);
        bytes = sizeof STREAM_HEAD - 1;
    }
    put_digits(event + stamp_at + STAMP_DIGITS + 1, connection->sequence, SEQUENCE_DIGITS);
    put_digits(event + stamp_at, now_ns(), STAMP_DIGITS);
    memcpy(block + bytes, event, event_bytes);
    bytes += event_bytes;
    served.events++;
    bool last = ++connection->sequence >= connection->events;
    if (last) {
        const char *end = connection->usage ? finish_usage : finish;
        size_t end_bytes = connection->usage ? finish_usage_bytes : finish_bytes;
        memcpy(block + bytes, end, end_bytes);
        bytes += end_bytes;
        connection->streaming = false;
        served.finished++;
    }
    if (send_bytes(fd, block, bytes) && !last) {
        if (connection->out_bytes) {
            connection->starved = true; /* the next event waits for this one to leave */
        } else {
            connection->due += connection->pace_ns;
            push(&paced, fd, connection->born, connection->due);
        }
    }
}

/* Answers one whole request. Gives whether the connection is still open. */
static bool answer(int fd, const char *head, const char *body, size_t body_bytes) {
    struct connection *connection = &table[fd];
    uint64_t pace_us, events;
    if (strncmp(head, "POST ", 5) == 0 && memmem(head, (size_t)(body - head), "/chat/completions", 17)) {
        served.requests++;
        if (!memmem(body, body_bytes, "\"stream\":true", 13) && !memmem(body, body_bytes, "\"stream\": true", 14)) {
            return send_bytes(fd, json, json_bytes);
        }
        served.streams++;
        connection->usage = memmem(body, body_bytes, "\"include_usage\":true", 20) ||
                            memmem(body, body_bytes, "\"include_usage\": true", 21);
        connection->streaming = true;
        connection->sequence = 0;
        connection->events = (uint32_t)events_a_stream;
        connection->pace_ns = pace_ns;
        connection->due = now_ns();
        send_event(fd);
        return connection->open;
    }
    if (sscanf(head, "GET /control/%lu/%lu ", &pace_us, &events) == 2 && events > 0) {
        pace_ns = pace_us * 1000;
        events_a_stream = events;
        return send_bytes(fd, control, strlen(control));
    }
    if (strncmp(head, "GET ", 4) == 0 || strncmp(head, "HEAD ", 5) == 0) {
        return send_bytes(fd, models, head[0] == 'G' ? strlen(models) : (size_t)(strstr(models, "\r\n\r\n") + 4 - models));
    }
    served.refused++;
    close_connection(fd);
    return false;
}

/* Finds the end of a request's body: by its length, or by the last chunk. Gives NULL while it is not all there. */
static const char *body_end(const char *head, const char *body, const char *end) {
    bool chunked = false;
    uint64_t length = 0;
    for (const char *line = strstr(head, "\r\n") + 2; line < body - 2; line = strstr(line, "\r\n") + 2) {
        if (strncasecmp(line, "content-length:", 15) == 0) {
            length = strtoull(line + 15, NULL, 10);
        } else if (strncasecmp(line, "transfer-encoding:", 18) == 0) {
            chunked = true;
        }
    }
    if (chunked) {
        const char *last = memmem(body, (size_t)(end - body), "0\r\n\r\n", 5);
        return last ? last + 5 : NULL;
    }
    return (uint64_t)(end - body) >= length ? body + length : NULL;
}

/* Answers the whole requests among `bytes` of `data` (which ends in NUL); keeps the rest. */
static void take(int fd, char *data, size_t bytes) {
    struct connection *connection = &table[fd];
    char *end = data + bytes;
    while (data < end && !connection->streaming) {
        char *body = memmem(data, (size_t)(end - data), "\r\n\r\n", 4);
        const char *after = body ? body_end(data, body + 4, end) : NULL;
        if (!after) {
            break;
        }
        if (!answer(fd, data, body + 4, (size_t)(after - body - 4))) {
            return;
        }
        data += after - data;
    }
    size_t left = (size_t)(end - data);
    if (left > REQUEST_BYTES) {
        close_connection(fd);
        return;
    }
    char *kept = left ? malloc(left) : NULL;
    if (kept) {
        memcpy(kept, data, left);
    }
    free(connection->in);
    connection->in = kept;
    connection->in_bytes = left;
}

static void on_readable(int fd) {
    static char buffer[REQUEST_BYTES + READ_BYTES + 1];
    struct connection *connection = &table[fd];
    size_t kept = connection->in_bytes;
    memcpy(buffer, connection->in ? connection->in : "", kept);
    ssize_t got = recv(fd, buffer + kept, READ_BYTES, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        close_connection(fd);
    } else if (got > 0) {
        buffer[kept + (size_t)got] = '\0';
        take(fd, buffer, kept + (size_t)got);
    }
}

static void on_writable(int fd) {
    struct connection *connection = &table[fd];
    ssize_t sent = send(fd, connection->out, connection->out_bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        close_connection(fd);
        return;
    }
    connection->out_bytes -= sent > 0 ? (size_t)sent : 0;
    if (connection->out_bytes) {
        memmove(connection->out, connection->out + (sent > 0 ? sent : 0), connection->out_bytes);
        return;
    }
    free(connection->out);
    connection->out = NULL;
    connection->watched_for_writing = false;
    watch(epoll, EPOLL_CTL_MOD, fd, EPOLLIN);
    if (connection->starved) {
        uint64_t now = now_ns(), due = connection->due + connection->pace_ns;
        connection->starved = false;
        connection->due = due > now ? due : now;
        push(&paced, fd, connection->born, connection->due);
    }
}

static void on_connections(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        without_delay(fd);
        table[fd].open = true;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void make_texts(void) {
    json_bytes = (size_t)snprintf(json, sizeof json, JSON_HEAD, "200 OK", strlen(ANSWER), ANSWER);
    snprintf(models, sizeof models, JSON_HEAD, "200 OK", strlen(MODELS), MODELS);
    snprintf(control, sizeof control, JSON_HEAD, "200 OK", (size_t)2, "{}");
    event_bytes = (size_t)snprintf(event, sizeof event, "%zx\r\n%s\r\n", strlen(EVENT), EVENT);
    stamp_at = (size_t)(strchr(event, '@') + 1 - event);
    finish_bytes = (size_t)snprintf(finish, sizeof finish, "%zx\r\n%s\r\n%zx\r\n%s\r\n0\r\n\r\n", strlen(FINISH), FINISH,
                                    strlen(DONE), DONE);
    finish_usage_bytes = (size_t)snprintf(finish_usage, sizeof finish_usage, "%zx\r\n%s\r\n%zx\r\n%s\r\n%zx\r\n%s\r\n0\r\n\r\n",
                                          strlen(FINISH), FINISH, strlen(USAGE), USAGE, strlen(DONE), DONE);
}

static void listen_on(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 16384) != 0) {
        perror("listen");
        exit(2);
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN);
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void serve(void) {
    static struct epoll_event found[512];
    while (!ended) {
        int count = wait_until(epoll, found, 512, next_due(&paced));
        for (int i = 0; i < count; i++) {
            int fd = found[i].data.fd;
            if (fd == listener) {
                on_connections();
                continue;
            }
            if (found[i].events & EPOLLOUT && table[fd].open && table[fd].out_bytes) {
                on_writable(fd);
            }
            if (found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && table[fd].open) {
                on_readable(fd);
            }
        }
        uint64_t now = now_ns();
        for (int turn = 0; turn < EVENTS_A_TURN && next_due(&paced) <= now; turn++) {
            struct waiting next = pop(&paced);
            if (table[next.fd].born == next.born && table[next.fd].streaming) {
                send_event((int)next.fd);
            }
        }
    }
}

int main(int argc, char **argv) {
    uint64_t port = 0;
    for (int i = 1; i < argc; i += 2) {
        uint64_t value = i + 1 < argc ? number(argv[i], argv[i + 1]) : 0;
        if (strcmp(argv[i], "--port") == 0 && i + 1 < argc) {
            port = value;
        } else if (strcmp(argv[i], "--pace-us") == 0 && i + 1 < argc) {
            pace_ns = value * 1000;
        } else if (strcmp(argv[i], "--events") == 0 && value > 0) {
            events_a_stream = value;
        } else {
            fprintf(stderr, "usage: upstream [--port N] [--pace-us N] [--events N]\n");
            return 2;
        }
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    prepare_process();
    make_texts();
    listen_on((uint16_t)port);
    serve();
    printf("{\"requests\": %lu, \"streams\": %lu, \"finished\": %lu, \"cancelled\": %lu, \"events\": %lu, \"refused\": %lu}\n",
           served.requests, served.streams, served.finished, served.cancelled, served.events, served.refused);
    return 0;
}
