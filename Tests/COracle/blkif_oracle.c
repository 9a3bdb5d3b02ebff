#include "blkif_oracle.h"

#include <stddef.h>
#include <string.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>

// The layout that a 32-bit x86 compiler gives the same declarations: 64-bit members are 4-byte aligned. A
// member that would be naturally aligned anyway needs no mark.
typedef uint64_t narrow64 __attribute__((aligned(4)));

struct request32 {
  uint8_t operation, nr_segments;
  uint16_t handle;
  narrow64 id;
  narrow64 sector_number;
  struct blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};

struct discard32 {
  uint8_t operation, flag;
  uint16_t handle;
  narrow64 id;
  narrow64 sector_number;
  narrow64 nr_sectors;
};

struct indirect32 {
  uint8_t operation, indirect_op;
  uint16_t nr_segments;
  narrow64 id;
  narrow64 sector_number;
  uint16_t handle;
  uint32_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
  narrow64 pad;
};

struct response32 {
  narrow64 id;
  uint8_t operation;
  int16_t status;
};

#define LAYOUT(REQUEST, DISCARD, INDIRECT, RESPONSE)                          \
  ((struct blkif_oracle_layout){                                              \
      .request_size = sizeof(REQUEST),                                        \
      .response_size = sizeof(RESPONSE),                                      \
      .segment_size = sizeof(struct blkif_request_segment),                   \
      .operation = offsetof(REQUEST, operation),                              \
      .segment_count = offsetof(REQUEST, nr_segments),                        \
      .handle = offsetof(REQUEST, handle),                                    \
      .id = offsetof(REQUEST, id),                                            \
      .sector_number = offsetof(REQUEST, sector_number),                      \
      .segments = offsetof(REQUEST, seg),                                     \
      .discard_flag = offsetof(DISCARD, flag),                                \
      .discard_handle = offsetof(DISCARD, handle),                            \
      .discard_id = offsetof(DISCARD, id),                                    \
      .discard_sector_number = offsetof(DISCARD, sector_number),              \
      .discard_sectors = offsetof(DISCARD, nr_sectors),                       \
      .indirect_operation = offsetof(INDIRECT, indirect_op),                  \
      .indirect_segment_count = offsetof(INDIRECT, nr_segments),              \
      .indirect_id = offsetof(INDIRECT, id),                                  \
      .indirect_sector_number = offsetof(INDIRECT, sector_number),            \
      .indirect_handle = offsetof(INDIRECT, handle),                          \
      .indirect_references = offsetof(INDIRECT, indirect_grefs),              \
      .indirect_size = sizeof(INDIRECT),                                      \
      .response_id = offsetof(RESPONSE, id),                                  \
      .response_operation = offsetof(RESPONSE, operation),                    \
      .response_status = offsetof(RESPONSE, status),                          \
      .segment_reference = offsetof(struct blkif_request_segment, gref),      \
      .segment_first = offsetof(struct blkif_request_segment, first_sect),    \
      .segment_last = offsetof(struct blkif_request_segment, last_sect)})

struct blkif_oracle_layout blkif_oracle_layout(enum blkif_oracle_abi abi) {
  return abi == BLKIF_ORACLE_X86_32
             ? LAYOUT(struct request32, struct discard32, struct indirect32, struct response32)
             : LAYOUT(blkif_request_t, blkif_request_discard_t, blkif_request_indirect_t, blkif_response_t);
}

// The same code for both layouts: a structure is copied out of the slot, changed and copied back, so that
// bytes without a field keep what the caller put there.
#define ENCODE(REQUEST, DISCARD, INDIRECT)                 \
  switch (values->operation) {                             \
    case BLKIF_OP_INDIRECT: {                              \
      INDIRECT it;                                         \
      memcpy(&it, slot, sizeof it);                        \
      it.operation = values->operation;                    \
      it.indirect_op = values->inner_operation;            \
      it.nr_segments = values->segment_count;              \
      it.handle = values->handle;                          \
      it.id = values->id;                                  \
      it.sector_number = values->sector_number;            \
      memcpy(slot, &it, sizeof it);                        \
      break;                                               \
    }                                                      \
    case BLKIF_OP_DISCARD: {                               \
      DISCARD it;                                          \
      memcpy(&it, slot, sizeof it);                        \
      it.operation = values->operation;                    \
      it.flag = values->discard_flag;                      \
      it.handle = values->handle;                          \
      it.id = values->id;                                  \
      it.sector_number = values->sector_number;            \
      it.nr_sectors = values->discard_sectors;             \
      memcpy(slot, &it, sizeof it);                        \
      break;                                               \
    }                                                      \
    default: {                                             \
      REQUEST it;                                          \
      memcpy(&it, slot, sizeof it);                        \
      it.operation = values->operation;                    \
      it.nr_segments = (uint8_t)values->segment_count;     \
      it.handle = values->handle;                          \
      it.id = values->id;                                  \
      it.sector_number = values->sector_number;            \
      memcpy(slot, &it, sizeof it);                        \
    }                                                      \
  }

void blkif_oracle_encode(enum blkif_oracle_abi abi, const struct blkif_oracle_request *values, void *slot) {
  if (abi == BLKIF_ORACLE_X86_32) {
    ENCODE(struct request32, struct discard32, struct indirect32)
  } else {
    ENCODE(blkif_request_t, blkif_request_discard_t, blkif_request_indirect_t)
  }
}

#define DECODE(REQUEST, DISCARD, INDIRECT)       \
  {                                              \
    REQUEST direct;                              \
    DISCARD discard;                             \
    INDIRECT indirect;                           \
    memcpy(&direct, slot, sizeof direct);        \
    memcpy(&discard, slot, sizeof discard);      \
    memcpy(&indirect, slot, sizeof indirect);    \
    values.operation = direct.operation;         \
    values.inner_operation = direct.operation;   \
    values.id = direct.id;                       \
    values.sector_number = direct.sector_number; \
    values.handle = direct.handle;               \
    switch (direct.operation) {                  \
      case BLKIF_OP_INDIRECT:                    \
        values.inner_operation = indirect.indirect_op;  \
        values.segment_count = indirect.nr_segments;    \
        values.handle = indirect.handle;         \
        break;                                   \
      case BLKIF_OP_DISCARD:                     \
        values.discard_flag = discard.flag;      \
        values.discard_sectors = discard.nr_sectors;    \
        break;                                   \
      default:                                   \
        values.segment_count = direct.nr_segments;      \
    }                                            \
  }

struct blkif_oracle_request blkif_oracle_decode(enum blkif_oracle_abi abi, const void *slot) {
  struct blkif_oracle_request values = {0};
  if (abi == BLKIF_ORACLE_X86_32)
    DECODE(struct request32, struct discard32, struct indirect32)
  else
    DECODE(blkif_request_t, blkif_request_discard_t, blkif_request_indirect_t)
  return values;
}

static char *segment_place(enum blkif_oracle_abi abi, uint32_t index, const void *slot) {
  size_t base = abi == BLKIF_ORACLE_X86_32 ? offsetof(struct request32, seg) : offsetof(blkif_request_t, seg);
  return (char *)slot + base + index * sizeof(struct blkif_request_segment);
}

static char *reference_place(enum blkif_oracle_abi abi, uint32_t index, const void *slot) {
  size_t base = abi == BLKIF_ORACLE_X86_32 ? offsetof(struct indirect32, indirect_grefs)
                                           : offsetof(blkif_request_indirect_t, indirect_grefs);
  return (char *)slot + base + index * sizeof(uint32_t);
}

void blkif_oracle_set_segment(
    enum blkif_oracle_abi abi, uint32_t index, struct blkif_oracle_segment segment, void *slot) {
  struct blkif_request_segment it;
  memcpy(&it, segment_place(abi, index, slot), sizeof it);
  it.gref = segment.reference;
  it.first_sect = segment.first;
  it.last_sect = segment.last;
  memcpy(segment_place(abi, index, slot), &it, sizeof it);
}

struct blkif_oracle_segment blkif_oracle_segment(enum blkif_oracle_abi abi, uint32_t index, const void *slot) {
  struct blkif_request_segment it;
  memcpy(&it, segment_place(abi, index, slot), sizeof it);
  return (struct blkif_oracle_segment){it.gref, it.first_sect, it.last_sect};
}

void blkif_oracle_set_reference(enum blkif_oracle_abi abi, uint32_t index, uint32_t reference, void *slot) {
  memcpy(reference_place(abi, index, slot), &reference, sizeof reference);
}

uint32_t blkif_oracle_reference(enum blkif_oracle_abi abi, uint32_t index, const void *slot) {
  uint32_t reference;
  memcpy(&reference, reference_place(abi, index, slot), sizeof reference);
  return reference;
}

void blkif_oracle_encode_response(
    enum blkif_oracle_abi abi, uint64_t id, uint8_t operation, int16_t status, void *slot) {
  if (abi == BLKIF_ORACLE_X86_32) {
    struct response32 it;
    memcpy(&it, slot, sizeof it);
    it.id = id, it.operation = operation, it.status = status;
    memcpy(slot, &it, sizeof it);
  } else {
    blkif_response_t it;
    memcpy(&it, slot, sizeof it);
    it.id = id, it.operation = operation, it.status = status;
    memcpy(slot, &it, sizeof it);
  }
}

void blkif_oracle_decode_response(
    enum blkif_oracle_abi abi, const void *slot, uint64_t *id, uint8_t *operation, int16_t *status) {
  if (abi == BLKIF_ORACLE_X86_32) {
    struct response32 it;
    memcpy(&it, slot, sizeof it);
    *id = it.id, *operation = it.operation, *status = it.status;
  } else {
    blkif_response_t it;
    memcpy(&it, slot, sizeof it);
    *id = it.id, *operation = it.operation, *status = it.status;
  }
}

struct blkif_oracle_constants blkif_oracle_constants(void) {
  return (struct blkif_oracle_constants){
      .read = BLKIF_OP_READ,
      .write = BLKIF_OP_WRITE,
      .barrier = BLKIF_OP_WRITE_BARRIER,
      .flush = BLKIF_OP_FLUSH_DISKCACHE,
      .reserved = BLKIF_OP_RESERVED_1,
      .discard = BLKIF_OP_DISCARD,
      .indirect = BLKIF_OP_INDIRECT,
      .secure = BLKIF_DISCARD_SECURE,
      .okay = BLKIF_RSP_OKAY,
      .error = BLKIF_RSP_ERROR,
      .not_supported = BLKIF_RSP_EOPNOTSUPP,
      .direct_segments = BLKIF_MAX_SEGMENTS_PER_REQUEST,
      .indirect_pages = BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST};
}

const char *blkif_oracle_protocol(int which) {
  switch (which) {
    case 0: return XEN_IO_PROTO_ABI_X86_64;
    case 1: return XEN_IO_PROTO_ABI_X86_32;
    default: return XEN_IO_PROTO_ABI_ARM;
  }
}
