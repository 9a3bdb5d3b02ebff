#include <xen/io/ring.h>
