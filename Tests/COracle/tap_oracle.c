// What this machine's kernel makes of frames with virtio-net headers.
#define _GNU_SOURCE
#include "tap_oracle.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct opening {
  struct ringback_test_taps *taps;
  unsigned offloads;
  int error;
};

static int set_file(const char *path, const char *text) {
  int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return -1;
  ssize_t written = write(file, text, strlen(text));
  close(file);
  return written < 0 ? -1 : 0;
}

static int bring_up(int control, struct ifreq *request) {
  request->ifr_flags = IFF_UP;
  return ioctl(control, SIOCSIFFLAGS, request);
}

static int open_tap(int control, const char *name, unsigned offloads) {
  struct ifreq request;
  int header = 12, little = 1;
  int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tap < 0) return -1;
  memset(&request, 0, sizeof(request));
  strcpy(request.ifr_name, name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(tap, TUNSETIFF, &request) || ioctl(tap, TUNSETVNETHDRSZ, &header) ||
      ioctl(tap, TUNSETVNETLE, &little) || ioctl(tap, TUNSETOFFLOAD, (unsigned long)offloads) ||
      bring_up(control, &request) || ioctl(control, SIOCGIFINDEX, &request))
    goto failed;
  int index = request.ifr_ifindex;
  memset(&request, 0, sizeof(request));
  strcpy(request.ifr_name, "bridge0");
  request.ifr_ifindex = index;
  if (ioctl(control, SIOCBRADDIF, &request)) goto failed;
  return tap;
failed:;
  int error = errno;
  close(tap);
  errno = error;
  return -1;
}

static int open_bridge(int control, int control6) {
  struct ifreq request;
  struct in6_ifreq request6;
  struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
  const unsigned char hardware[6] = {2, 0, 0, 0, 0, 1};
  // An address of IPv6 is to be usable at once.
  if (set_file("/proc/sys/net/ipv6/conf/default/accept_dad", "0")) return -1;
  if (ioctl(control, SIOCBRADDBR, "bridge0")) return -1;
  memset(&request, 0, sizeof(request));
  strcpy(request.ifr_name, "bridge0");
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, hardware, sizeof(hardware));
  if (ioctl(control, SIOCSIFHWADDR, &request) || bring_up(control, &request)) return -1;
  if (ioctl(control, SIOCGIFINDEX, &request)) return -1;
  memset(&request6, 0, sizeof(request6));
  request6.ifr6_ifindex = request.ifr_ifindex;
  request6.ifr6_prefixlen = 64;
  inet_pton(AF_INET6, "fd77::1", &request6.ifr6_addr);
  if (ioctl(control6, SIOCSIFADDR, &request6)) return -1;
  memset(&request.ifr_addr, 0, sizeof(request.ifr_addr));
  address->sin_family = AF_INET;
  inet_pton(AF_INET, "192.168.77.1", &address->sin_addr);
  return ioctl(control, SIOCSIFADDR, &request);
}

static int bind_udp(int family) {
  struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_port = htons(5001)};
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(5001)};
  int only = 1;
  int socket_ = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket_ < 0) return -1;
  int failed;
  if (family == AF_INET6) {
    failed = setsockopt(socket_, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) ||
             bind(socket_, (struct sockaddr *)&address6, sizeof(address6));
  } else {
    failed = bind(socket_, (struct sockaddr *)&address, sizeof(address));
  }
  if (!failed) return socket_;
  int error = errno;
  close(socket_);
  errno = error;
  return -1;
}

// A thread of its own, because a namespace is left for good.
static void *open_all(void *argument) {
  struct opening *opening = argument;
  struct ringback_test_taps *taps = opening->taps;
  int control = -1, control6 = -1;
  if (unshare(CLONE_NEWNET)) goto failed;
  control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  control6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0 || control6 < 0 || open_bridge(control, control6)) goto failed;
  if ((taps->sender = open_tap(control, "sender", 0)) < 0) goto failed;
  if ((taps->receiver = open_tap(control, "receiver", opening->offloads)) < 0) goto failed;
  if ((taps->udp4 = bind_udp(AF_INET)) < 0 || (taps->udp6 = bind_udp(AF_INET6)) < 0) goto failed;
  goto done;
failed:
  opening->error = errno;
done:
  if (control >= 0) close(control);
  if (control6 >= 0) close(control6);
  return NULL;
}

int ringback_test_taps_open(struct ringback_test_taps *taps, unsigned offloads) {
  struct opening opening = {taps, offloads, 0};
  pthread_t thread;
  taps->sender = taps->receiver = taps->udp4 = taps->udp6 = -1;
  int error = pthread_create(&thread, NULL, open_all, &opening);
  if (error) return error;
  pthread_join(thread, NULL);
  if (opening.error) ringback_test_taps_close(taps);
  return opening.error;
}

void ringback_test_taps_close(struct ringback_test_taps *taps) {
  const int all[] = {taps->sender, taps->receiver, taps->udp4, taps->udp6};
  for (size_t index = 0; index < sizeof(all) / sizeof(all[0]); index++)
    if (all[index] >= 0) close(all[index]);
}

int ringback_test_tap_write(int tap, const void *bytes, size_t count) {
  return write(tap, bytes, count) == (ssize_t)count ? 0 : errno;
}

ssize_t ringback_test_tap_read(int tap, void *bytes, size_t room, int timeout) {
  for (;;) {
    ssize_t count = read(tap, bytes, room);
    if (count >= 0 || errno != EAGAIN) return count;
    struct pollfd wait = {tap, POLLIN, 0};
    int ready = poll(&wait, 1, timeout);
    if (ready == 0) errno = ETIMEDOUT;
    if (ready <= 0) return -1;
  }
}
