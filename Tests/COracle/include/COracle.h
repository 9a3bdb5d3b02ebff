#include "blkif_oracle.h"
#include "ring_oracle.h"
#include "refuse.h"
#include "loop.h"
