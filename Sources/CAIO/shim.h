// libaio: Linux's older asynchronous I/O, for machines whose kernel forbids io_uring.
#ifndef RINGBACK_CAIO_H
#define RINGBACK_CAIO_H

#include <features.h>
#include <libaio.h>

#endif
