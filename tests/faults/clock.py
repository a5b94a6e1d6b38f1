"""Clocks that a test sets: a small library, loaded before the C library, adds seconds out of a file.

A jump leaves the monotonic clocks as they are, as an administrator's ``date -s`` does. A sleep of the machine moves those
that do not stand still meanwhile.
"""

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *shift(void) {
    static const volatile long *at;
    static const long none[2];
    if (!at) {
        const char *path = getenv("CLOCK_SHIFT_FILE");
        int file = path ? open(path, O_RDONLY) : -1;
        void *map = file < 0 ? MAP_FAILED : mmap(0, 2 * sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        at = map == MAP_FAILED ? none : map;
        if (file >= 0) close(file);
    }
    return at;
}

int clock_gettime(clockid_t which, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, out);
    if (!code && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) out->tv_sec += shift()[0];
    if (!code && which == CLOCK_BOOTTIME) out->tv_sec += shift()[1];
    return code;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@dataclass
class Clock:
    """``env``: what a process needs to live by it."""

    env: dict[str, str]
    file: Path
    seconds: int = 0
    slept: int = 0

    def jump(self, seconds: int) -> None:
        """Set it so many seconds on, or back."""
        self.seconds += seconds
        self._write()

    def sleep(self, seconds: int) -> None:
        """The machine sleeps for so long."""
        self.seconds += seconds
        self.slept += seconds
        self._write()

    def _write(self) -> None:
        with self.file.open("r+b") as out:
            out.write(struct.pack("2l", self.seconds, self.slept))


@contextmanager
def jumping_clock(folder: Path) -> Iterator[Clock]:
    """A clock that goes right until it is told to jump. Built with the compiler that builds the gateway."""
    source, library, file = folder / "clock.c", folder / "clock.so", folder / "shift"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    file.write_bytes(struct.pack("2l", 0, 0))
    yield Clock({"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(file)}, file)
