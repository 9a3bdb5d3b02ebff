// liburing without _GNU_SOURCE (it would change types that the Glibc module also defines), plus the few
// constants and calls that glibc hides behind it.
#ifndef RINGBACK_CURING_H
#define RINGBACK_CURING_H

// First: liburing.h defines _GNU_SOURCE for itself, which has no effect once the features are chosen.
#include <features.h>
#include <sched.h>
#include <liburing.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

/// O_DIRECT as this architecture defines it (fcntl.h gives it only with _GNU_SOURCE).
static inline int ringback_o_direct(void) {
#ifdef __O_DIRECT
  return __O_DIRECT;
#else
  return 040000;
#endif
}

/// O_PATH, likewise.
static inline int ringback_o_path(void) { return __O_PATH; }

/// Closes every descriptor from `first` on in the process to be started (glibc 2.34, hidden likewise).
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int first);

static inline int ringback_memfd_create(const char *name, unsigned flags) {
  return (int)syscall(SYS_memfd_create, name, flags);
}

/// Size of a block device in bytes, its logical and physical block sizes; 0 or -1 with errno set.
static inline int ringback_block_size(int fd, uint64_t *bytes, int *logical, unsigned *physical) {
  if (ioctl(fd, BLKGETSIZE64, bytes) != 0) return -1;
  if (ioctl(fd, BLKSSZGET, logical) != 0) return -1;
  return ioctl(fd, BLKPBSZGET, physical);
}

/// Direct I/O alignment of an open file: bytes for memory and for offset and length, both 0 when the file
/// system refuses direct I/O. Returns 1 when the kernel answered (Linux 6.1: STATX_DIOALIGN), else 0.
static inline int ringback_direct_alignment(int fd, uint32_t *memory, uint32_t *offset) {
  // struct statx is 256 bytes; by words: mask 0, dio_mem_align 38, dio_offset_align 39 (linux/stat.h).
  uint32_t words[64] = {0};
  const int empty_path = 0x1000;
  const uint32_t wanted = 0x2000;
  if (syscall(SYS_statx, fd, "", empty_path, wanted, words) != 0 || !(words[0] & wanted)) return 0;
  *memory = words[38];
  *offset = words[39];
  return 1;
}

/// Writes back and drops what the page cache holds of a block device.
static inline int ringback_drop_block_cache(int fd) { return ioctl(fd, BLKFLSBUF, 0); }

/// 1 when a block device takes no writes, though it may have been opened for them.
static inline int ringback_is_read_only(int fd) {
  int read_only = 0;
  return ioctl(fd, BLKROGET, &read_only) == 0 && read_only != 0;
}

/// fallocate(2), which glibc declares only with _GNU_SOURCE.
static inline int ringback_fallocate(int fd, int mode, int64_t offset, int64_t length) {
  return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/// Gives a range of a block device back.
static inline int ringback_discard(int fd, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ioctl(fd, BLKDISCARD, range);
}

/// Gives a range of a block device back so that no copy of it can be read again.
static inline int ringback_secure_discard(int fd, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ioctl(fd, BLKSECDISCARD, range);
}

/// 1 when a block device takes ranges back. The range asked for begins within a sector, so it is refused by
/// all that can (EINVAL) after those that cannot have said so (EOPNOTSUPP; block/ioctl.c).
static inline int ringback_can_discard(int fd) { return ringback_discard(fd, 1, 512) != 0 && errno == EINVAL; }

/// The same for secure discards; of kernels before 5.19, which look at the range first, always 0.
static inline int ringback_can_discard_securely(int fd) {
  struct utsname names;
  int major = 0, minor = 0;
  if (uname(&names) != 0 || sscanf(names.release, "%d.%d", &major, &minor) != 2) return 0;
  if (major < 5 || (major == 5 && minor < 19)) return 0;
  return ringback_secure_discard(fd, 1, 512) != 0 && errno == EINVAL;
}

/// Bytes a block device gives back at once, as sysfs tells (0: it does not).
static inline uint64_t ringback_discard_granularity(int fd) {
  struct stat status;
  uint64_t granularity = 0;
  if (fstat(fd, &status) != 0) return 0;
  // A partition's queue is its disk's.
  const char *const forms[] = {"/sys/dev/block/%u:%u/queue/discard_granularity",
                               "/sys/dev/block/%u:%u/../queue/discard_granularity"};
  for (int form = 0; form < 2; form++) {
    char path[96];
    snprintf(path, sizeof(path), forms[form], major(status.st_rdev), minor(status.st_rdev));
    FILE *file = fopen(path, "re");
    if (file == NULL) continue;
    if (fscanf(file, "%" SCNu64, &granularity) != 1) granularity = 0;
    fclose(file);
    break;
  }
  return granularity;
}

/// Makes a range of a block device read as zeros.
static inline int ringback_zero_out(int fd, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ioctl(fd, BLKZEROOUT, range);
}

/// Puts the calling thread, and no other, into a fresh network namespace (unshare(2), CLONE_NEWNET).
static inline int ringback_unshare_network(void) { return (int)syscall(SYS_unshare, 0x40000000); }

/// Puts the calling thread into the network namespace that `fd` holds open (setns(2), CLONE_NEWNET).
static inline int ringback_enter_network(int fd) { return (int)syscall(SYS_setns, fd, 0x40000000); }

/// Writes `count` bytes unless the kernel would have to wait; -EOPNOTSUPP where it cannot promise that
/// (pwritev2(2), RWF_NOWAIT). Bytes written, or a negative error number.
static inline long ringback_write_without_waiting(int fd, const void *bytes, size_t count) {
  struct { const void *base; size_t length; } vector = {bytes, count};
  long result = syscall(SYS_pwritev2, fd, &vector, 1, 0, 0, 8 /* RWF_NOWAIT */);
  return result < 0 ? -errno : result;
}

/// Names the calling thread; 15 bytes show.
static inline void ringback_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

/// Tells the processor that its thread is only looking.
static inline void ringback_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

/// A completion taken off the ring; `valid` is 0 when there was none.
struct ringback_completion {
  uint64_t token;
  int32_t result;
  uint32_t valid;
};

/// Takes the oldest completion and gives its slot back to the kernel.
static inline struct ringback_completion ringback_take_completion(struct io_uring *ring) {
  struct ringback_completion taken = {0, 0, 0};
  unsigned head = *ring->cq.khead;
  if (head == __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE)) return taken;
  const struct io_uring_cqe *entry = &ring->cq.cqes[head & ring->cq.ring_mask];
  taken.token = entry->user_data;
  taken.result = entry->res;
  taken.valid = 1;
  __atomic_store_n(ring->cq.khead, head + 1, __ATOMIC_RELEASE);
  return taken;
}

/// True when only the kernel can move completions on: deferred task work or an overflowed queue.
static inline int ringback_kernel_has_completions(const struct io_uring *ring) {
  unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
  return (flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

#endif
