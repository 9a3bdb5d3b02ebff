// Thin view of libxen-dev for Swift: the libraries RingKit calls and the wire sizes it relies on.
#ifndef RINGBACK_CXEN_H
#define RINGBACK_CXEN_H

#include <stdint.h>
#include <stddef.h>
#include <stdarg.h>
#include <xentoollog.h>
#include <xengnttab.h>
#include <xenevtchn.h>
#include <xenstore.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/io/ring.h>
#include <xen/io/blkif.h>
#include <xen/io/netif.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

static inline void ringback_log_nothing(
  struct xentoollog_logger *logger, xentoollog_level level, int error, const char *context, const char *format,
  va_list arguments) {
  (void)logger; (void)level; (void)error; (void)context; (void)format; (void)arguments;
}
static inline void ringback_destroy_nothing(struct xentoollog_logger *logger) { (void)logger; }

/// A logger that says nothing. Without one libxengnttab prints a line for every grant it cannot map, and a
/// guest chooses how many of those there are (XSA-43, XSA-180).
static inline struct xentoollog_logger *ringback_quiet_logger(void) {
  static struct xentoollog_logger quiet = {
    .vmessage = ringback_log_nothing, .progress = NULL, .destroy = ringback_destroy_nothing};
  return &quiet;
}

_Static_assert(sizeof(struct blkif_request_segment) == 8, "blkif segment");
#if defined(__x86_64__) || defined(__aarch64__)
_Static_assert(sizeof(blkif_request_t) == 112, "64-bit blkif request");
_Static_assert(sizeof(blkif_response_t) == 16, "64-bit blkif response");
_Static_assert(sizeof(blkif_request_indirect_t) == 64, "64-bit indirect request");
#endif
_Static_assert(sizeof(struct netif_tx_request) == 12, "netif transmit request");
_Static_assert(sizeof(struct netif_tx_response) == 4, "netif transmit response");
_Static_assert(sizeof(struct netif_rx_request) == 8, "netif receive request");
_Static_assert(sizeof(struct netif_rx_response) == 8, "netif receive response");
_Static_assert(sizeof(struct netif_extra_info) == 8, "netif extra info");
_Static_assert(sizeof(struct xen_netif_ctrl_request) == 16, "netif control request");
_Static_assert(sizeof(struct xen_netif_ctrl_response) == 12, "netif control response");
_Static_assert(sizeof(struct xen_netif_gref) == 8, "netif staging grant");
_Static_assert(sizeof(struct xsd_sockmsg) == 16, "xenstore message header");

#endif
