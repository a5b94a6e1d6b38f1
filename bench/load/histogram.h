/* Times in buckets that grow with them: 64 to each power of two, so that a percentile is at most 1.6 % too high. */
#ifndef AGW_BENCH_HISTOGRAM_H
#define AGW_BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define FINE_BITS 6
#define FINE (1u << FINE_BITS)
#define BUCKETS ((64 - FINE_BITS + 1) * FINE)

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t count, sum, least, most; /* ns */
};

static inline void record(struct histogram *histogram, uint64_t ns) {
    uint32_t bucket = (uint32_t)ns;
    if (ns >= FINE) {
        uint32_t shift = 63u - FINE_BITS - (uint32_t)__builtin_clzll(ns);
        bucket = (shift + 1) * FINE + (uint32_t)((ns >> shift) & (FINE - 1));
    }
    histogram->counts[bucket]++;
    histogram->least = histogram->count == 0 || ns < histogram->least ? ns : histogram->least;
    histogram->most = ns > histogram->most ? ns : histogram->most;
    histogram->sum += ns;
    histogram->count++;
}

/* The upper edge in ns of the bucket below which `share` of the values lie; 0 where there are none. */
static inline uint64_t percentile(const struct histogram *histogram, double share) {
    uint64_t wanted = (uint64_t)(share * (double)histogram->count + 0.999999), seen = 0;
    for (uint32_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (histogram->counts[bucket] && seen >= wanted) {
            uint32_t shift = bucket < FINE ? 0 : bucket / FINE - 1;
            uint64_t low = bucket < FINE ? bucket : (uint64_t)(FINE + bucket % FINE) << shift;
            uint64_t high = low + ((uint64_t)1 << shift) - 1;
            return high < histogram->most ? high : histogram->most;
        }
    }
    return 0;
}

/* Prints one more member of a JSON object; all values in microseconds. */
static inline void print_histogram(const char *name, const struct histogram *histogram) {
    static const struct { const char *name; double share; } shown[] = {
        {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    printf(", \"%s\": {\"count\": %lu, \"mean\": %.3f, \"min\": %.3f, \"max\": %.3f", name, histogram->count,
           histogram->count ? (double)histogram->sum / (double)histogram->count / 1e3 : 0.0,
           (double)histogram->least / 1e3, (double)histogram->most / 1e3);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        printf(", \"%s\": %.3f", shown[i].name, (double)percentile(histogram, shown[i].share) / 1e3);
    }
    printf("}");
}

#endif
