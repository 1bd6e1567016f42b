/* Writes down, in order and for all processes that preload it, what happens to the files under one directory, so that
 * platter.py can say what a disk would hold had the power been cut at any of these moments.
 *
 * NC_POWERCUT is the directory, NC_POWERCUT_STATE a folder that holds `state` (shared memory, 4096 bytes) and `log`.
 * The shim opens none of the watched files itself: closing any descriptor of a file would drop the process's POSIX
 * locks on it. Files ending in -shm are left out. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE, EXTEND, SYNC, SYNC_NAMES, SYNC_ALL, SYNC_FAILED, CREATE, OPEN, UNLINK, RENAME, LINK,
            VOID, SHORT, DOUBT, WITNESS, UNSEEN };

struct record { uint32_t kind, length; uint64_t inode, offset; int32_t process, spare; };

/* The first fields are read and written by powercut.py. `doing` is where the record of the change under way begins, plus
 * one: a process killed in it leaves it behind. */
struct state {
    uint64_t end, doing;
    int32_t sync_error, write_error, lying, ready;
    char spare[32];
    pthread_mutex_t lock; /* robust: a process killed in the midst leaves it to the next */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct state *state;
static int log_fd = -1;
static char directory[PATH_MAX], witness[PATH_MAX];
static size_t directory_length;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open64, const char *, int, ...);
REAL(int, openat64, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t);
REAL(ssize_t, pwritev64v2, int, const struct iovec *, int, off64_t, int);
REAL(int, ftruncate64, int, off64_t);
REAL(int, posix_fallocate64, int, off64_t, off64_t);
REAL(int, fallocate64, int, int, off64_t, off64_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(void, sync, void);
REAL(int, syncfs, int);
REAL(int, unlinkat, int, const char *, int);
REAL(int, renameat2, int, const char *, int, const char *, unsigned);
REAL(int, linkat, int, const char *, int, const char *, int);
REAL(void *, mmap64, void *, size_t, int, int, int, off64_t);
REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
REAL(ssize_t, splice, int, off64_t *, int, off64_t *, size_t, unsigned);

static void give_up(const char *why) {
    dprintf(2, "powercut: %s: %s\n", why, strerror(errno));
    abort();
}

static void map_state(const char *folder) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/state", folder);
    int fd = real_open64(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) give_up("cannot open the state");
    state = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED) give_up("cannot map the state");
    while (flock(fd, LOCK_EX) && errno == EINTR) {}
    if (!state->ready) {
        pthread_mutexattr_t shared;
        pthread_mutexattr_init(&shared);
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&state->lock, &shared);
        state->ready = 1;
    }
    flock(fd, LOCK_UN); /* the mapping keeps the file open, and with it the lock */
    close(fd);
    snprintf(path, sizeof path, "%s/log", folder);
    log_fd = real_open64(path, O_RDWR | O_CLOEXEC);
    if (log_fd < 0) give_up("cannot open the log");
    /* Out of the way of programs that count on low numbers being free. */
    int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 700);
    if (high >= 0) { close(log_fd); log_fd = high; }
    snprintf(witness, sizeof witness, "%s/witness", folder);
}

static void load(void) {
#define FIND(name) real_##name = dlsym(RTLD_NEXT, #name)
    FIND(open64); FIND(openat64); FIND(write); FIND(writev); FIND(pwrite64); FIND(pwritev64); FIND(pwritev64v2);
    FIND(ftruncate64); FIND(posix_fallocate64); FIND(fallocate64); FIND(fsync); FIND(fdatasync); FIND(sync);
    FIND(syncfs); FIND(unlinkat); FIND(renameat2); FIND(linkat); FIND(mmap64); FIND(copy_file_range);
    FIND(sendfile64); FIND(splice);
    const char *watched = getenv("NC_POWERCUT"), *folder = getenv("NC_POWERCUT_STATE");
    if (!watched || !folder) return;
    snprintf(directory, sizeof directory, "%s", watched);
    directory_length = strlen(directory);
    map_state(folder);
}

/* For mmap: glibc itself may map memory while dlsym runs. */
static __thread int loading;
static void ready(void) {
    if (loading) return;
    loading = 1;
    pthread_once(&once, load);
    loading = 0;
}
__attribute__((constructor)) static void begin(void) { ready(); }

/* --- the log ------------------------------------------------------------------------------------------------- */

static uint64_t append(enum kind kind, uint64_t inode, uint64_t offset, const struct iovec *payload, int count) {
    struct record head = {kind, 0, inode, offset, getpid(), 0};
    uint64_t start = state->end, at = start + sizeof head;
    for (int i = 0; i < count; i++) {
        const char *data = payload[i].iov_base;
        for (size_t done = 0; done < payload[i].iov_len;) {
            ssize_t n = real_pwrite64(log_fd, data + done, payload[i].iov_len - done, at);
            if (n < 0) give_up("cannot write the log");
            done += n;
            at += n;
        }
    }
    head.length = at - start - sizeof head;
    if (real_pwrite64(log_fd, &head, sizeof head, start) != sizeof head) give_up("cannot write the log");
    state->end = at; /* only now is it part of the log: a process killed before has written nothing */
    return start;
}

static void append_text(enum kind kind, uint64_t inode, uint64_t offset, const char *text) {
    struct iovec payload = {(void *)text, strlen(text)};
    append(kind, inode, offset, &payload, 1);
}

static void lock(void) {
    int error = pthread_mutex_lock(&state->lock);
    if (error == EOWNERDEAD) {
        pthread_mutex_consistent(&state->lock);
        if (state->doing) append(DOUBT, 0, state->doing - 1, NULL, 0);
        state->doing = 0;
    } else if (error) {
        errno = error;
        give_up("cannot lock");
    }
}

static void unlock(void) { pthread_mutex_unlock(&state->lock); }

/* --- which files ---------------------------------------------------------------------------------------------- */

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* The path below the directory ("" for itself), or NULL when it is none of ours. */
static const char *inside(const char *path) {
    if (strncmp(path, directory, directory_length)) return NULL;
    if (!path[directory_length]) return path + directory_length;
    if (path[directory_length] != '/' || ends_with(path, "-shm")) return NULL;
    return path + directory_length + 1;
}

static const char *name_of(int fd, char path[PATH_MAX]) {
    int saved = errno;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = state ? readlink(link, path, PATH_MAX - 1) : -1;
    errno = saved;
    if (n <= 0) return NULL;
    path[n] = 0;
    if (ends_with(path, " (deleted)")) path[n - 10] = 0;
    return inside(path);
}

static int is_ours(int fd) {
    char path[PATH_MAX];
    return name_of(fd, path) != NULL;
}

static int is_witness(int fd) {
    char path[PATH_MAX];
    path[0] = 0;
    name_of(fd, path);
    return state && !strcmp(path, witness);
}

static uint64_t inode_of(int fd) {
    struct stat64 found;
    int saved = errno;
    uint64_t inode = fstat64(fd, &found) ? 0 : found.st_ino;
    errno = saved;
    return inode;
}

/* As name_of, for a path that may not exist; symbolic links in its folders are followed. */
static const char *resolve(int folder, const char *path, char out[PATH_MAX]) {
    char whole[PATH_MAX * 2], parent[PATH_MAX], base[PATH_MAX], link[40];
    if (!state || !path) return NULL;
    int saved = errno;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        if (folder == AT_FDCWD) {
            if (!getcwd(parent, sizeof parent)) goto none;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t n = readlink(link, parent, sizeof parent - 1);
            if (n <= 0) goto none;
            parent[n] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", parent, path);
    }
    char *slash = strrchr(whole, '/');
    snprintf(base, sizeof base, "%s", slash + 1);
    *slash = 0;
    if (!realpath(*whole ? whole : "/", parent)) goto none;
    if ((size_t)snprintf(out, PATH_MAX, "%s/%s", parent, base) >= PATH_MAX) goto none;
    errno = saved;
    return inside(out);
none:
    errno = saved;
    return NULL;
}

/* --- opening -------------------------------------------------------------------------------------------------- */

static int opening(int folder, const char *path, int flags, mode_t mode) {
    ready();
    char buffer[PATH_MAX];
    struct stat64 before;
    if (!state || !path || !resolve(folder, path, buffer)) return real_openat64(folder, path, flags, mode);
    lock();
    int exists = !fstatat64(folder, path, &before, 0);
    if (exists && !S_ISREG(before.st_mode)) { /* a pipe may block */
        unlock();
        return real_openat64(folder, path, flags, mode);
    }
    int fd = real_openat64(folder, path, flags, mode);
    const char *name = fd < 0 || (flags & O_PATH) ? NULL : name_of(fd, buffer);
    if (name) {
        uint64_t inode = inode_of(fd);
        append_text(exists ? OPEN : CREATE, inode, 0, name);
        if (exists && (flags & O_TRUNC)) append(TRUNCATE, inode, 0, NULL, 0);
    }
    int saved = errno;
    unlock();
    errno = saved;
    return fd;
}

#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }
int open(const char *path, int flags, ...) { MODE(flags, mode) return opening(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return opening(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags, mode) return opening(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags, mode) return opening(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opening(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opening(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* --- writing: written down first, then done ------------------------------------------------------------------- */

/* -1 refused, 0 none of ours, 1 written down and locked. An offset below zero is the descriptor's own. */
static int write_begins(int fd, const struct iovec *data, int count, off64_t offset, uint64_t *start) {
    ready();
    if (!is_ours(fd)) {
        if (is_witness(fd)) {
            lock();
            append(WITNESS, 0, 0, data, count);
            unlock();
        }
        return 0;
    }
    if (state->write_error) {
        errno = state->write_error;
        return -1;
    }
    lock();
    int flags = fcntl(fd, F_GETFL);
    struct stat64 found;
    if ((flags & O_APPEND) && !fstat64(fd, &found)) offset = found.st_size; /* on Linux pwrite appends too */
    else if (offset < 0) offset = lseek64(fd, 0, SEEK_CUR);
    *start = append(WRITE, inode_of(fd), offset, data, count);
    state->doing = *start + 1;
    return 1;
}

static void change_ends(int fd, ssize_t done, ssize_t wanted, uint64_t start) {
    int saved = errno;
    if (done < 0) append(VOID, 0, start, NULL, 0);
    else if (done < wanted) append(SHORT, done, start, NULL, 0);
    state->doing = 0;
    if (done > 0 && (fcntl(fd, F_GETFL) & O_DSYNC) && !state->lying) append(SYNC, inode_of(fd), state->end, NULL, 0);
    unlock();
    errno = saved;
}

static ssize_t total(const struct iovec *data, int count) {
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) sum += data[i].iov_len;
    return sum;
}

#define WRITING(fd, data, count, offset, call)                                                                         \
    uint64_t start = 0;                                                                                                \
    int ours = write_begins(fd, data, count, offset, &start);                                                          \
    if (ours < 0) return -1;                                                                                           \
    ssize_t done = call;                                                                                               \
    if (ours) change_ends(fd, done, total(data, count), start);                                                        \
    return done;

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec one = {(void *)data, size};
    WRITING(fd, &one, 1, -1, real_write(fd, data, size))
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    struct iovec one = {(void *)data, size};
    WRITING(fd, &one, 1, offset, real_pwrite64(fd, data, size, offset))
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }
ssize_t writev(int fd, const struct iovec *data, int count) {
    WRITING(fd, data, count, -1, real_writev(fd, data, count))
}
ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t offset) {
    WRITING(fd, data, count, offset, real_pwritev64(fd, data, count, offset))
}
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t offset) {
    return pwritev64(fd, data, count, offset);
}
ssize_t pwritev64v2(int fd, const struct iovec *data, int count, off64_t offset, int flags) {
    if (is_ours(fd)) flags &= ~RWF_DSYNC & ~RWF_SYNC; /* its durability is not believed: less is promised than was done */
    WRITING(fd, data, count, offset, real_pwritev64v2(fd, data, count, offset, flags))
}
ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t offset, int flags) {
    return pwritev64v2(fd, data, count, offset, flags);
}

#define RESIZING(fd, kind, size, call, failed)                                                                         \
    ready();                                                                                                           \
    if (!is_ours(fd)) return call;                                                                                     \
    if (state->write_error && (kind) == EXTEND) return failed(state->write_error);                                     \
    lock();                                                                                                            \
    uint64_t start = append(kind, inode_of(fd), size, NULL, 0);                                                        \
    state->doing = start + 1;                                                                                          \
    int result = call;                                                                                                 \
    change_ends(fd, result ? -1 : 0, 0, start);                                                                        \
    return result;
static int by_number(int error) { return error; }
static int by_errno(int error) { errno = error; return -1; }

int ftruncate64(int fd, off64_t size) { RESIZING(fd, TRUNCATE, size, real_ftruncate64(fd, size), by_errno) }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    RESIZING(fd, EXTEND, offset + size, real_posix_fallocate64(fd, offset, size), by_number)
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
    ready();
    if (mode && is_ours(fd)) return by_errno(EOPNOTSUPP); /* holes and collapsed ranges are not modelled */
    RESIZING(fd, EXTEND, offset + size, real_fallocate64(fd, mode, offset, size), by_errno)
}
int fallocate(int fd, int mode, off_t offset, off_t size) { return fallocate64(fd, mode, offset, size); }
int truncate64(const char *path, off64_t size) {
    int fd = open64(path, O_WRONLY);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, size), saved = errno;
    close(fd);
    errno = saved;
    return result;
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }

/* --- syncing: what was written before it began is durable once it is over ------------------------------------- */

static uint64_t now(void) {
    lock();
    uint64_t end = state->end;
    unlock();
    return end;
}

static int syncing(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    struct stat64 found;
    const char *name = name_of(fd, path);
    if (!name) return real(fd);
    uint64_t upto = now();
    int error = state->sync_error;
    int result = error ? by_errno(error) : real(fd), saved = errno;
    if (state->lying && !result) return 0;
    int is_folder = !fstat64(fd, &found) && S_ISDIR(found.st_mode);
    lock();
    if (!result && is_folder) append_text(SYNC_NAMES, 0, upto, name);
    else append(result ? SYNC_FAILED : SYNC, found.st_ino, upto, NULL, 0);
    unlock();
    errno = saved;
    return result;
}
int fsync(int fd) { ready(); return syncing(fd, real_fsync); }
int fdatasync(int fd) { ready(); return syncing(fd, real_fdatasync); }

static void synced_all(uint64_t upto) {
    if (!state || state->lying) return;
    lock();
    append(SYNC_ALL, 0, upto, NULL, 0);
    unlock();
}
void sync(void) {
    ready();
    uint64_t upto = state ? now() : 0;
    real_sync();
    synced_all(upto);
}
int syncfs(int fd) {
    ready();
    struct stat64 theirs, ours;
    int same = state && !fstat64(fd, &theirs) && !stat64(directory, &ours) && theirs.st_dev == ours.st_dev;
    uint64_t upto = same ? now() : 0;
    int result = real_syncfs(fd);
    if (same && !result) synced_all(upto);
    return result;
}

/* --- names: done first, then written down, for the inode must be known ---------------------------------------- */

int unlinkat(int folder, const char *path, int flags) {
    ready();
    char buffer[PATH_MAX];
    struct stat64 found;
    const char *name = flags & AT_REMOVEDIR ? NULL : resolve(folder, path, buffer);
    if (!name) return real_unlinkat(folder, path, flags);
    lock();
    int known = !fstatat64(folder, path, &found, AT_SYMLINK_NOFOLLOW);
    int result = real_unlinkat(folder, path, flags), saved = errno;
    if (!result && known) append_text(UNLINK, found.st_ino, 0, name);
    unlock();
    errno = saved;
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

static void moved(enum kind kind, uint64_t inode, const char *from, const char *to) {
    struct iovec names[3] = {{(void *)from, strlen(from)}, {"", 1}, {(void *)to, strlen(to)}};
    append(kind, inode, 0, names, 3);
}

int renameat2(int folder, const char *old, int target, const char *new, unsigned flags) {
    ready();
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    struct stat64 found;
    const char *from = resolve(folder, old, from_buffer), *to = resolve(target, new, to_buffer);
    if (!from && !to) return real_renameat2(folder, old, target, new, flags);
    lock();
    int known = !fstatat64(folder, old, &found, AT_SYMLINK_NOFOLLOW);
    int result = real_renameat2(folder, old, target, new, flags), saved = errno;
    if (!result && known) {
        if (flags & RENAME_EXCHANGE) append_text(UNSEEN, 0, 0, "two names were exchanged");
        else if (S_ISDIR(found.st_mode)) append_text(UNSEEN, 0, 0, "a directory was renamed");
        else if (!from) append_text(UNSEEN, 0, 0, "a file was moved in from elsewhere");
        else if (!to) append_text(UNLINK, found.st_ino, 0, from);
        else moved(RENAME, found.st_ino, from, to);
    }
    unlock();
    errno = saved;
    return result;
}
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int folder, const char *old, int target, const char *new) {
    return renameat2(folder, old, target, new, 0);
}

int linkat(int folder, const char *old, int target, const char *new, int flags) {
    ready();
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    struct stat64 found;
    const char *from = resolve(folder, old, from_buffer), *to = resolve(target, new, to_buffer);
    if (!to) return real_linkat(folder, old, target, new, flags);
    lock();
    int result = real_linkat(folder, old, target, new, flags), saved = errno;
    if (!result && !from) append_text(UNSEEN, 0, 0, "a file was linked in from elsewhere");
    else if (!result && !fstatat64(target, new, &found, 0)) append_text(LINK, found.st_ino, 0, to);
    unlock();
    errno = saved;
    return result;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

/* --- ways to write that cannot be followed: refused where callers have another way, else confessed ------------- */

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t offset) {
    ready();
    if (!real_mmap64) return (errno = ENOMEM, MAP_FAILED);
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && is_ours(fd)) {
        lock();
        append_text(UNSEEN, 0, 0, "a file was mapped for writing");
        unlock();
    }
    return real_mmap64(address, size, protection, flags, fd, offset);
}
void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    return mmap64(address, size, protection, flags, fd, offset);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
    ready();
    if (is_ours(to)) return by_errno(EXDEV);
    return real_copy_file_range(from, at, to, there, size, flags);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    ready();
    return is_ours(to) ? by_errno(EINVAL) : real_sendfile64(to, from, at, size);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) { return sendfile64(to, from, at, size); }
ssize_t splice(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
    ready();
    return is_ours(to) ? by_errno(EINVAL) : real_splice(from, at, to, there, size, flags);
}
