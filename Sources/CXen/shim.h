// Thin view of libxen-dev for Swift: the libraries RingKit calls and the wire sizes it relies on.
#ifndef RINGBACK_CXEN_H
#define RINGBACK_CXEN_H

#include <stdint.h>
#include <stddef.h>
#include <xengnttab.h>
#include <xenevtchn.h>
#include <xenstore.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/io/ring.h>
#include <xen/io/blkif.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

_Static_assert(sizeof(struct blkif_request_segment) == 8, "blkif segment");
#if defined(__x86_64__) || defined(__aarch64__)
_Static_assert(sizeof(blkif_request_t) == 112, "64-bit blkif request");
_Static_assert(sizeof(blkif_response_t) == 16, "64-bit blkif response");
_Static_assert(sizeof(blkif_request_indirect_t) == 64, "64-bit indirect request");
#endif
_Static_assert(sizeof(struct xsd_sockmsg) == 16, "xenstore message header");

#endif
