// libnbd: the client of network block devices.
#ifndef RINGBACK_CNBD_H
#define RINGBACK_CNBD_H

#include <features.h>
#include <libnbd.h>

#endif
