/* Preloaded into the dying process: sees every write, sync and name change on the files of one folder.
 *
 * It can die before the k-th of them, make the k-th sync fail, and record them all, in order, with their data.
 * One lock is held around each call, so that the record's order is the order in which they happened.
 * The log is a row of: op (1 byte), path length (2), offset (8), data length (8), path, data. Little end first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char folder[PATH_MAX];
static size_t folder_length;
static int armed, silent, log_to = -1;
static long kill_at, fail_at, calls, syncs;

void crash_shim_arm(const char *path, int log, long kill, long fail, int says_nothing) {
  snprintf(folder, sizeof folder, "%s", path);
  folder_length = strlen(folder);
  log_to = log;
  kill_at = kill;
  fail_at = fail;
  silent = says_nothing;
  calls = syncs = 0;
  armed = 1;
}

void crash_shim_rest(void) { armed = 0; }
long crash_shim_calls(void) { return calls; }
long crash_shim_syncs(void) { return syncs; }

static void put(const void *data, size_t size) {
  const char *at = data;
  while (size) {
    long done = syscall(SYS_write, log_to, at, size);
    if (done <= 0) return;
    at += done;
    size -= done;
  }
}

static void note(char op, const char *path, int64_t offset, const void *data, uint64_t size) {
  if (log_to < 0) return;
  char head[19];
  uint16_t length = strlen(path);
  head[0] = op;
  memcpy(head + 1, &length, 2);
  memcpy(head + 3, &offset, 8);
  memcpy(head + 11, &size, 8);
  put(head, sizeof head);
  put(path, length);
  if (data) put(data, size);
}

void crash_shim_mark(const void *data, uint64_t size) {
  pthread_mutex_lock(&lock);
  if (armed) note('M', "", 0, data, size);
  pthread_mutex_unlock(&lock);
}

static int is_ours(const char *path) {
  size_t length = strlen(path);
  if (strncmp(path, folder, folder_length)) return 0;
  if (path[folder_length] && path[folder_length] != '/') return 0;
  return length < 4 || strcmp(path + length - 4, "-shm"); /* the index beside the log is not durable */
}

static int path_of(int descriptor, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_ours(path);
}

static void step(void) {
  if (++calls == kill_at) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
  }
}

static ssize_t written(char *path, const void *data, ssize_t done, int64_t offset) {
  if (done > 0) note('W', path, offset, data, done);
  return done;
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
  char path[PATH_MAX];
  if (!armed || !path_of(descriptor, path)) return syscall(SYS_pwrite64, descriptor, data, size, offset);
  pthread_mutex_lock(&lock);
  step();
  ssize_t done = written(path, data, syscall(SYS_pwrite64, descriptor, data, size, offset), offset);
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
  return pwrite64(descriptor, data, size, offset);
}

ssize_t write(int descriptor, const void *data, size_t size) {
  char path[PATH_MAX];
  if (!armed || !path_of(descriptor, path)) return syscall(SYS_write, descriptor, data, size);
  pthread_mutex_lock(&lock);
  step();
  int64_t offset = lseek(descriptor, 0, SEEK_CUR);
  ssize_t done = written(path, data, syscall(SYS_write, descriptor, data, size), offset);
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int ftruncate64(int descriptor, off64_t size) {
  char path[PATH_MAX];
  if (!armed || !path_of(descriptor, path)) return syscall(SYS_ftruncate, descriptor, size);
  pthread_mutex_lock(&lock);
  step();
  int done = syscall(SYS_ftruncate, descriptor, size), error = errno;
  if (!done) note('T', path, size, 0, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

static int synced(int number, int descriptor) {
  char path[PATH_MAX];
  if (!armed || !path_of(descriptor, path)) return syscall(number, descriptor);
  pthread_mutex_lock(&lock);
  step();
  int done = -1, error = EIO;
  if (++syncs == fail_at) {
    note('X', path, 0, 0, 0); /* what was not on the disk may never come there, and the next sync will not tell */
    if (silent) done = 0;
  } else {
    done = syscall(number, descriptor);
    error = errno;
    if (!done) note('S', path, 0, 0, 0);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int fsync(int descriptor) { return synced(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return synced(SYS_fdatasync, descriptor); }

static int named(char op, const char *path, const char *to, int (*call)(const char *, const char *)) {
  if (!armed || !is_ours(path)) return call(path, to);
  pthread_mutex_lock(&lock);
  step();
  int done = call(path, to), error = errno;
  if (!done) note(op, path, 0, to, to ? strlen(to) : 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

static int real_unlink(const char *path, const char *none) { return (void)none, syscall(SYS_unlinkat, AT_FDCWD, path, 0); }
static int real_rename(const char *path, const char *to) { return syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, to, 0); }

int unlink(const char *path) { return named('U', path, 0, real_unlink); }
int rename(const char *path, const char *to) { return named('R', path, to, real_rename); }

static int opened(const char *path, int flags, mode_t mode) {
  if (!armed || !(flags & (O_CREAT | O_TRUNC)) || !is_ours(path))
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  pthread_mutex_lock(&lock);
  struct stat before;
  int exists = !stat(path, &before);
  if (!exists || flags & O_TRUNC) step();
  int done = syscall(SYS_openat, AT_FDCWD, path, flags, mode), error = errno;
  if (done >= 0 && !exists) note('C', path, 0, 0, 0);
  if (done >= 0 && exists && flags & O_TRUNC) note('T', path, 0, 0, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

#define MODE(flags, last) \
  mode_t mode = 0; \
  if ((flags) & O_CREAT) { \
    va_list more; \
    va_start(more, last); \
    mode = va_arg(more, mode_t); \
    va_end(more); \
  }

int open64(const char *path, int flags, ...) {
  MODE(flags, flags)
  return opened(path, flags | O_LARGEFILE, mode);
}

int open(const char *path, int flags, ...) {
  MODE(flags, flags)
  return opened(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
  if (!armed || !is_ours(path)) return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
  pthread_mutex_lock(&lock);
  step();
  int done = syscall(SYS_mkdirat, AT_FDCWD, path, mode), error = errno;
  if (!done) note('D', path, 0, 0, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}
