// liburing without _GNU_SOURCE (it would change types that the Glibc module also defines), plus the few
// constants and calls that glibc hides behind it.
#ifndef RINGBACK_CURING_H
#define RINGBACK_CURING_H

// First: liburing.h defines _GNU_SOURCE for itself, which has no effect once the features are chosen.
#include <features.h>
#include <sched.h>
#include <liburing.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/// O_DIRECT as this architecture defines it (fcntl.h gives it only with _GNU_SOURCE).
static inline int ringback_o_direct(void) {
#ifdef __O_DIRECT
  return __O_DIRECT;
#else
  return 040000;
#endif
}

static inline int ringback_memfd_create(const char *name, unsigned flags) {
  return (int)syscall(SYS_memfd_create, name, flags);
}

/// Size of a block device in bytes, its logical and physical block sizes; 0 or -1 with errno set.
static inline int ringback_block_size(int fd, uint64_t *bytes, int *logical, unsigned *physical) {
  if (ioctl(fd, BLKGETSIZE64, bytes) != 0) return -1;
  if (ioctl(fd, BLKSSZGET, logical) != 0) return -1;
  return ioctl(fd, BLKPBSZGET, physical);
}

#endif
