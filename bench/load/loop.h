/* What both programs stand on: the clock, and waiting for sockets until a point in time. */
#ifndef AGW_BENCH_LOOP_H
#define AGW_BENCH_LOOP_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NEVER UINT64_MAX
#define SECOND_NS 1000000000ull
#define MAX_FDS 262144 /* descriptors index the tables of connections */

static inline uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * SECOND_NS + (uint64_t)at.tv_nsec;
}

/* Waits for events until `due` (ns of CLOCK_MONOTONIC; NEVER: without end). Gives their number; a signal gives 0. */
static inline int wait_until(int epoll, struct epoll_event *events, int most, uint64_t due) {
    struct timespec left = {0, 0};
    if (due != NEVER) {
        uint64_t now = now_ns();
        uint64_t ns = due > now ? due - now : 0;
        left.tv_sec = (time_t)(ns / SECOND_NS);
        left.tv_nsec = (long)(ns % SECOND_NS);
    }
    /* epoll_wait counts in milliseconds, which is 50 events at 50,000 a second; this one in nanoseconds (Linux 5.11). */
    long found = syscall(SYS_epoll_pwait2, epoll, events, most, due == NEVER ? NULL : &left, NULL, 0);
    if (found >= 0) {
        return (int)found;
    }
    if (errno == EINTR) {
        return 0;
    }
    perror("epoll_pwait2");
    exit(2);
}

/* As many descriptors as allowed, and timers that are not rounded to the default 50 us. */
static inline void prepare_process(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    prctl(PR_SET_TIMERSLACK, 1000ul);
}

static inline void watch(int epoll, int operation, int fd, uint32_t what) {
    struct epoll_event event = {.events = what, .data = {.fd = fd}};
    if (epoll_ctl(epoll, operation, fd, &event) != 0) {
        perror("epoll_ctl");
        exit(2);
    }
}

static inline void without_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* A number from the command line; ends the program where it is none. */
static inline uint64_t number(const char *option, const char *text) {
    char *end = NULL;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || *text == '-') {
        fprintf(stderr, "%s: expected a whole number, got '%s'\n", option, text);
        exit(2);
    }
    return value;
}

#endif
