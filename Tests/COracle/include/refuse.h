#ifndef RINGBACK_TEST_REFUSE_H
#define RINGBACK_TEST_REFUSE_H

/// Has the kernel answer io_uring_setup and io_setup, as asked, with `error`. 0, or an error number.
int ringback_test_refuse(int uring, int aio, int error);

#endif
