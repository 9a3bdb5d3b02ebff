#include <xen/io/ring.h>
#include "blkif_oracle.h"
