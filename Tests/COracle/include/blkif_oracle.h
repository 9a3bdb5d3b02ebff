// The layouts of blkif.h as a C compiler sees them, for comparison with Blkback's own.
#ifndef RINGBACK_BLKIF_ORACLE_H
#define RINGBACK_BLKIF_ORACLE_H

#include <stdint.h>

/// Which layout: the header's own on this machine, or the 32-bit one with 4-byte alignment.
enum blkif_oracle_abi { BLKIF_ORACLE_X86_64, BLKIF_ORACLE_X86_32 };

/// A request as plain values, whatever its layout.
struct blkif_oracle_request {
  uint8_t operation;
  uint8_t inner_operation;
  uint8_t discard_flag;
  uint16_t segment_count;
  uint16_t handle;
  uint64_t id;
  uint64_t sector_number;
  uint64_t discard_sectors;
};

struct blkif_oracle_segment {
  uint32_t reference;
  uint8_t first;
  uint8_t last;
};

/// Sizes and offsets by sizeof and offsetof.
struct blkif_oracle_layout {
  uint32_t request_size, response_size, segment_size;
  uint32_t operation, segment_count, handle, id, sector_number, segments;
  uint32_t discard_flag, discard_handle, discard_id, discard_sector_number, discard_sectors;
  uint32_t indirect_operation, indirect_segment_count, indirect_id, indirect_sector_number, indirect_handle,
      indirect_references, indirect_size;
  uint32_t response_id, response_operation, response_status;
  uint32_t segment_reference, segment_first, segment_last;
};

struct blkif_oracle_layout blkif_oracle_layout(enum blkif_oracle_abi abi);

/// Fill `slot` (128 bytes, left as it is where no field lies) from `values`.
void blkif_oracle_encode(enum blkif_oracle_abi abi, const struct blkif_oracle_request *values, void *slot);
void blkif_oracle_set_segment(
    enum blkif_oracle_abi abi, uint32_t index, struct blkif_oracle_segment segment, void *slot);
void blkif_oracle_set_reference(enum blkif_oracle_abi abi, uint32_t index, uint32_t reference, void *slot);

/// Read `slot` by the same structures.
struct blkif_oracle_request blkif_oracle_decode(enum blkif_oracle_abi abi, const void *slot);
struct blkif_oracle_segment blkif_oracle_segment(enum blkif_oracle_abi abi, uint32_t index, const void *slot);
uint32_t blkif_oracle_reference(enum blkif_oracle_abi abi, uint32_t index, const void *slot);

/// Responses, both ways.
void blkif_oracle_encode_response(
    enum blkif_oracle_abi abi, uint64_t id, uint8_t operation, int16_t status, void *slot);
void blkif_oracle_decode_response(
    enum blkif_oracle_abi abi, const void *slot, uint64_t *id, uint8_t *operation, int16_t *status);

/// Constants of the header.
struct blkif_oracle_constants {
  uint8_t read, write, barrier, flush, reserved, discard, indirect, secure;
  int16_t okay, error, not_supported;
  uint32_t direct_segments, indirect_pages;
};
struct blkif_oracle_constants blkif_oracle_constants(void);

/// Values of the node "protocol": 0 x86_64, 1 x86_32, 2 arm.
const char *blkif_oracle_protocol(int which);

#endif
