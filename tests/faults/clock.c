/* A wall clock that jumps while the process runs, and a machine that was restarted: for processes that preload it.
 *
 * NC_CLOCK is a folder that holds `offsets` (shared memory: nanoseconds added to the wall clock; nanoseconds added to the
 * clocks that count from boot, read once when a process starts, for a restart ends all processes) and, after a restart,
 * `boot_id`, which is opened in the place of /proc/sys/kernel/random/boot_id. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L
#define SLICE 20000000L
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

struct offsets { volatile int64_t wall, boot; };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct offsets nothing, *offsets = &nothing;
static int64_t boot;
static char boot_id[PATH_MAX];
static int (*real_openat64)(int, const char *, int, ...);
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
static int (*real_timedwait)(sem_t *, const struct timespec *);
static int (*real_clockwait)(sem_t *, clockid_t, const struct timespec *);
static int (*real_condition)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

static void load(void) {
    real_openat64 = dlsym(RTLD_NEXT, "openat64");
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_nanosleep = dlsym(RTLD_NEXT, "clock_nanosleep");
    real_timedwait = dlsym(RTLD_NEXT, "sem_timedwait");
    real_clockwait = dlsym(RTLD_NEXT, "sem_clockwait");
    real_condition = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    const char *folder = getenv("NC_CLOCK");
    char path[PATH_MAX];
    if (!folder) return;
    snprintf(boot_id, sizeof boot_id, "%s/boot_id", folder);
    snprintf(path, sizeof path, "%s/offsets", folder);
    int fd = real_openat64(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    void *found = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof nothing, PROT_READ, MAP_SHARED, fd, 0);
    if (found == MAP_FAILED) {
        dprintf(2, "clock: %s: %s\n", path, strerror(errno));
        abort();
    }
    close(fd);
    offsets = found;
    boot = offsets->boot;
}
static void ready(void) { pthread_once(&once, load); }
__attribute__((constructor)) static void begin(void) { ready(); }

static int64_t offset_of(clockid_t clock) {
    switch (clock) {
    case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE: case CLOCK_REALTIME_ALARM: case CLOCK_TAI: return offsets->wall;
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_COARSE: /* CLOCK_MONOTONIC_RAW stays: the observer keeps time by it */
    case CLOCK_BOOTTIME: case CLOCK_BOOTTIME_ALARM: return boot;
    default: return 0;
    }
}

static struct timespec shifted(struct timespec at, int64_t by) {
    int64_t nanoseconds = at.tv_nsec + by % SECOND;
    at.tv_sec += by / SECOND + nanoseconds / SECOND;
    at.tv_nsec = nanoseconds % SECOND;
    if (at.tv_nsec < 0) { at.tv_nsec += SECOND; at.tv_sec--; }
    return at;
}

/* What the kernel should wait for when the process asks for `at`. */
static struct timespec real_time(clockid_t clock, const struct timespec *at) { return shifted(*at, -offset_of(clock)); }

int clock_gettime(clockid_t clock, struct timespec *out) {
    ready();
    int result = real_gettime(clock, out);
    if (!result) *out = shifted(*out, offset_of(clock));
    return result;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int timespec_get(struct timespec *out, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, out) ? base : 0;
}

/* Waiting until a moment. Deadlines of the wall clock are turned into the kernel's when the wait begins: a jump in the
 * midst of it is not noticed, as it would be by the kernel. */
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
    ready();
    if (!(flags & TIMER_ABSTIME)) return real_nanosleep(clock, flags, wanted, left);
    struct timespec until = real_time(clock, wanted);
    return real_nanosleep(clock, flags, &until, left);
}
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict at) {
    ready();
    struct timespec until = real_time(CLOCK_REALTIME, at);
    return real_timedwait(semaphore, &until);
}
int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict at) {
    ready();
    struct timespec until = real_time(clock, at);
    return real_clockwait(semaphore, clock, &until);
}
int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *lock, clockid_t clock, const struct timespec *at) {
    ready();
    struct timespec until = real_time(clock, at);
    return real_condition(condition, lock, clock, &until);
}
/* The clock of a condition is in its attributes, which cannot be asked for: the second lowest bit of glibc's
 * __wrefs says that it is the monotonic one. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict lock,
                           const struct timespec *restrict at) {
    clockid_t clock = condition->__data.__wrefs & 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    return pthread_cond_clockwait(condition, lock, clock, at);
}

/* As librdkafka waits: until a moment of the wall clock. In slices, so that a jump in the midst is noticed, as it would be
 * by the kernel. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict lock, const struct timespec *restrict at) {
    ready();
    static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "cnd_timedwait");
    for (;;) {
        struct timespec now, until = real_time(CLOCK_REALTIME, at);
        real_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec > until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec))
            return thrd_timedout;
        struct timespec soon = shifted(now, SLICE);
        int last = soon.tv_sec > until.tv_sec || (soon.tv_sec == until.tv_sec && soon.tv_nsec >= until.tv_nsec);
        int result = real(condition, lock, last ? &until : &soon);
        if (result != thrd_timedout) return result;
    }
}

/* Rust's threads park on futexes by themselves, with deadlines of CLOCK_MONOTONIC. */
long syscall(long number, ...) {
    ready();
    static long (*real)(long, ...);
    if (!real) real = dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    struct timespec until;
    if (number == SYS_futex && (a[1] & 127) == 9 && a[3]) { /* FUTEX_WAIT_BITSET: its deadline is absolute */
        int wall = a[1] & 256;
        until = real_time(wall ? CLOCK_REALTIME : CLOCK_MONOTONIC, (struct timespec *)a[3]);
        a[3] = (long)&until;
    }
    if (number == SYS_clock_gettime) return clock_gettime(a[0], (struct timespec *)a[1]);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static const char *redirected(const char *path) {
    ready();
    return path && *boot_id && !strcmp(path, BOOT_ID) && !access(boot_id, R_OK) ? boot_id : path;
}
#define OPEN(name, parameters, folder)                                                                                 \
    int name parameters {                                                                                              \
        mode_t mode = 0;                                                                                               \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                                                         \
            va_list rest;                                                                                              \
            va_start(rest, flags);                                                                                     \
            mode = va_arg(rest, mode_t);                                                                               \
            va_end(rest);                                                                                              \
        }                                                                                                              \
        path = redirected(path);                                                                                       \
        return real_openat64(folder, path, flags, mode);                                                               \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), folder)
OPEN(openat64, (int folder, const char *path, int flags, ...), folder)
FILE *fopen64(const char *path, const char *mode) {
    static FILE *(*real)(const char *, const char *);
    if (!real) real = dlsym(RTLD_NEXT, "fopen64");
    return real(redirected(path), mode);
}
FILE *fopen(const char *path, const char *mode) { return fopen64(path, mode); }
