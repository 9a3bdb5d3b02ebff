// Loop devices for tests, by the kernel's own calls (linux/loop.h).
#include "loop.h"

#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>

#ifndef LOOP_CONFIGURE
#define LOOP_CONFIGURE 0x4C0A
#endif

int ringback_test_loop_free(int control) { return ioctl(control, LOOP_CTL_GET_FREE); }

int ringback_test_loop_attach(int device, int file, unsigned sector) {
  struct loop_config configuration;
  memset(&configuration, 0, sizeof(configuration));
  configuration.fd = (unsigned)file;
  configuration.block_size = sector;
  return ioctl(device, LOOP_CONFIGURE, &configuration);
}

int ringback_test_loop_follow_size(int device) { return ioctl(device, LOOP_SET_CAPACITY, 0); }

int ringback_test_loop_detach(int device) { return ioctl(device, LOOP_CLR_FD, 0); }
