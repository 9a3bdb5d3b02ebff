#ifndef RINGBACK_TEST_LOOP_H
#define RINGBACK_TEST_LOOP_H

/// The number of a free loop device; negative with errno set when there is none to be had.
int ringback_test_loop_free(int control);
/// Puts `file` behind a device with sectors of so many bytes (LOOP_CONFIGURE, Linux 5.8).
int ringback_test_loop_attach(int device, int file, unsigned sector);
/// Takes over the file's size.
int ringback_test_loop_follow_size(int device);
/// Takes the file away.
int ringback_test_loop_detach(int device);

#endif
