#include "COracle.h"
