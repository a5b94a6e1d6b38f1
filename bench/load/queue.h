/* Descriptors that are due at a time. All wait equally long, so that first in is first due: a ring does for a wheel. */
#ifndef AGW_BENCH_QUEUE_H
#define AGW_BENCH_QUEUE_H

#include "loop.h"

#define QUEUE_SLOTS (2u * MAX_FDS) /* a power of two; a descriptor stands here once, or twice if it was closed and reused */

struct waiting {
    uint64_t due;  /* ns */
    uint32_t fd;
    uint32_t born; /* tells a reused descriptor from the one that was queued */
};

struct queue {
    struct waiting slots[QUEUE_SLOTS];
    uint32_t head, tail; /* free-running; their difference is the length */
};

static inline void push(struct queue *queue, int fd, uint32_t born, uint64_t due) {
    if (queue->tail - queue->head == QUEUE_SLOTS) {
        fprintf(stderr, "the queue is full\n");
        exit(2);
    }
    queue->slots[queue->tail++ & (QUEUE_SLOTS - 1)] = (struct waiting){due, (uint32_t)fd, born};
}

/* The time at which the first is due; NEVER where none waits. */
static inline uint64_t next_due(const struct queue *queue) {
    return queue->head == queue->tail ? NEVER : queue->slots[queue->head & (QUEUE_SLOTS - 1)].due;
}

/* The first one; only while next_due is not NEVER. */
static inline struct waiting pop(struct queue *queue) {
    return queue->slots[queue->head++ & (QUEUE_SLOTS - 1)];
}

#endif
