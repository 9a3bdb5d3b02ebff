#ifndef RINGBACK_TEST_TAP_ORACLE_H
#define RINGBACK_TEST_TAP_ORACLE_H

#include <stddef.h>
#include <sys/types.h>

/// Two TAPs with virtio-net headers of 12 bytes on one bridge, in a network namespace of their own that lives
/// as long as the descriptors.
struct ringback_test_taps {
  /// What is written to this one comes out of `receiver`.
  int sender;
  /// Takes `offloads` (TUN_F_*) from the kernel.
  int receiver;
  /// Sockets of UDP at the bridge's own addresses, port 5001: 192.168.77.1 and fd77::1.
  int udp4, udp6;
};

/// Makes them; 0, or the errno of the first call that failed, with nothing open. The bridge has the hardware
/// address 02:00:00:00:00:01.
int ringback_test_taps_open(struct ringback_test_taps *taps, unsigned offloads);
void ringback_test_taps_close(struct ringback_test_taps *taps);
/// Writes header and frame; 0 or an errno.
int ringback_test_tap_write(int tap, const void *bytes, size_t count);
/// Waits for the next frame or datagram; its bytes, or -1 with errno set, ETIMEDOUT after `timeout` ms.
ssize_t ringback_test_tap_read(int tap, void *bytes, size_t room, int timeout);

#endif
