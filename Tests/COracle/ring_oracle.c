#include "ring_oracle.h"

#include <stdlib.h>
#include <string.h>

// ring.h leaves the barriers to its user.
#define xen_mb() __sync_synchronize()
#define xen_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define xen_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/io/ring.h>

// The macros want a distinct type for each protocol. These ones make, for each, functions over plain
// structures that unpack one end, run one macro of ring.h, and pack it again.
#define UNPACK_FRONT(name, from) \
  name##_front_ring_t ring = {(from)->req_prod_pvt, (from)->rsp_cons, (from)->nr_ents, (from)->sring}
#define UNPACK_BACK(name, from) \
  name##_back_ring_t ring = {(from)->rsp_prod_pvt, (from)->req_cons, (from)->nr_ents, (from)->sring}

#define DEFINE_PROTOCOL(name, request_size, response_size) \
  typedef struct { uint32_t words[(request_size) / 4]; } name##_request_t; \
  typedef struct { uint32_t words[(response_size) / 4]; } name##_response_t; \
  DEFINE_RING_TYPES(name, name##_request_t, name##_response_t); \
  static size_t name##_slot_offset(void *sring, uint32_t slots, uint32_t index) { \
    name##_back_ring_t ring = {0, 0, slots, sring}; \
    return (size_t)((char *)RING_GET_REQUEST(&ring, index) - (char *)sring); \
  } \
  static void name##_front_init(struct ring_oracle_front *front, size_t size, uint32_t index) { \
    name##_sring_t *sring = front->sring; \
    name##_front_ring_t ring; \
    SHARED_RING_INIT(sring); \
    sring->req_prod += index, sring->req_event += index; \
    sring->rsp_prod += index, sring->rsp_event += index; \
    FRONT_RING_ATTACH(&ring, sring, index, size); \
    front->req_prod_pvt = ring.req_prod_pvt, front->rsp_cons = ring.rsp_cons, front->nr_ents = ring.nr_ents; \
  } \
  static uint32_t name##_front_free(const struct ring_oracle_front *front) { \
    UNPACK_FRONT(name, front); \
    return RING_FREE_REQUESTS(&ring); \
  } \
  static void name##_front_place(struct ring_oracle_front *front, const void *request) { \
    UNPACK_FRONT(name, front); \
    memcpy(RING_GET_REQUEST(&ring, front->req_prod_pvt++), request, sizeof(name##_request_t)); \
  } \
  static bool name##_front_push(struct ring_oracle_front *front) { \
    UNPACK_FRONT(name, front); \
    bool notify; \
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&ring, notify); \
    return notify; \
  } \
  static uint32_t name##_front_unconsumed(const struct ring_oracle_front *front) { \
    UNPACK_FRONT(name, front); \
    return XEN_RING_NR_UNCONSUMED_RESPONSES(&ring); \
  } \
  static void name##_front_take(struct ring_oracle_front *front, void *response) { \
    UNPACK_FRONT(name, front); \
    RING_COPY_RESPONSE(&ring, front->rsp_cons++, (name##_response_t *)response); \
  } \
  static bool name##_front_final_check(struct ring_oracle_front *front) { \
    UNPACK_FRONT(name, front); \
    bool work; \
    RING_FINAL_CHECK_FOR_RESPONSES(&ring, work); \
    return work; \
  } \
  static bool name##_front_overflow(const struct ring_oracle_front *front, uint32_t producer) { \
    UNPACK_FRONT(name, front); \
    return RING_RESPONSE_PROD_OVERFLOW(&ring, producer); \
  } \
  static void name##_back_attach(struct ring_oracle_back *back, size_t size, uint32_t index) { \
    name##_back_ring_t ring; \
    BACK_RING_ATTACH(&ring, (name##_sring_t *)back->sring, index, size); \
    back->rsp_prod_pvt = ring.rsp_prod_pvt, back->req_cons = ring.req_cons, back->nr_ents = ring.nr_ents; \
  } \
  static uint32_t name##_back_unconsumed(const struct ring_oracle_back *back) { \
    UNPACK_BACK(name, back); \
    return XEN_RING_NR_UNCONSUMED_REQUESTS(&ring); \
  } \
  static void name##_back_take(struct ring_oracle_back *back, void *request) { \
    UNPACK_BACK(name, back); \
    RING_COPY_REQUEST(&ring, back->req_cons++, (name##_request_t *)request); \
  } \
  static void name##_back_respond(struct ring_oracle_back *back, const void *response) { \
    UNPACK_BACK(name, back); \
    memcpy(RING_GET_RESPONSE(&ring, back->rsp_prod_pvt++), response, sizeof(name##_response_t)); \
  } \
  static bool name##_back_publish(struct ring_oracle_back *back) { \
    UNPACK_BACK(name, back); \
    bool notify; \
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&ring, notify); \
    return notify; \
  } \
  static bool name##_back_final_check(struct ring_oracle_back *back) { \
    UNPACK_BACK(name, back); \
    bool work; \
    RING_FINAL_CHECK_FOR_REQUESTS(&ring, work); \
    return work; \
  } \
  static bool name##_back_overflow(const struct ring_oracle_back *back, uint32_t producer) { \
    UNPACK_BACK(name, back); \
    return RING_REQUEST_PROD_OVERFLOW(&ring, producer); \
  }

DEFINE_PROTOCOL(blkif64, 112, 16)
DEFINE_PROTOCOL(blkif32, 108, 12)
DEFINE_PROTOCOL(netif_tx, 12, 4)
DEFINE_PROTOCOL(netif_rx, 8, 8)
DEFINE_PROTOCOL(netif_ctrl, 16, 8)

// The protocol's own function for `kind`.
#define DISPATCH(kind, function, ...) \
  switch (kind) { \
    case RING_ORACLE_BLKIF_64: return blkif64_##function(__VA_ARGS__); \
    case RING_ORACLE_BLKIF_32: return blkif32_##function(__VA_ARGS__); \
    case RING_ORACLE_NETIF_TX: return netif_tx_##function(__VA_ARGS__); \
    case RING_ORACLE_NETIF_RX: return netif_rx_##function(__VA_ARGS__); \
    case RING_ORACLE_NETIF_CTRL: return netif_ctrl_##function(__VA_ARGS__); \
  } \
  abort()

size_t ring_oracle_request_size(enum ring_oracle_kind kind) {
  static const size_t sizes[] = {112, 108, 12, 8, 16};
  return sizes[kind];
}

size_t ring_oracle_response_size(enum ring_oracle_kind kind) {
  static const size_t sizes[] = {16, 12, 4, 8, 8};
  return sizes[kind];
}

size_t ring_oracle_slot_offset(enum ring_oracle_kind kind, void *sring, uint32_t slots, uint32_t index) {
  DISPATCH(kind, slot_offset, sring, slots, index);
}

static void front_init(struct ring_oracle_front *front, size_t size, uint32_t index) {
  DISPATCH(front->kind, front_init, front, size, index);
}

struct ring_oracle_front ring_oracle_front_init(
    enum ring_oracle_kind kind, void *sring, size_t size, uint32_t index) {
  struct ring_oracle_front front = {.kind = kind, .sring = sring};
  front_init(&front, size, index);
  return front;
}

uint32_t ring_oracle_front_free(const struct ring_oracle_front *front) {
  DISPATCH(front->kind, front_free, front);
}

void ring_oracle_front_place(struct ring_oracle_front *front, const void *request) {
  DISPATCH(front->kind, front_place, front, request);
}

bool ring_oracle_front_push(struct ring_oracle_front *front) { DISPATCH(front->kind, front_push, front); }

uint32_t ring_oracle_front_unconsumed(const struct ring_oracle_front *front) {
  DISPATCH(front->kind, front_unconsumed, front);
}

void ring_oracle_front_take(struct ring_oracle_front *front, void *response) {
  DISPATCH(front->kind, front_take, front, response);
}

bool ring_oracle_front_final_check(struct ring_oracle_front *front) {
  DISPATCH(front->kind, front_final_check, front);
}

bool ring_oracle_front_overflow(const struct ring_oracle_front *front, uint32_t producer) {
  DISPATCH(front->kind, front_overflow, front, producer);
}

static void back_attach(struct ring_oracle_back *back, size_t size, uint32_t index) {
  DISPATCH(back->kind, back_attach, back, size, index);
}

struct ring_oracle_back ring_oracle_back_attach(
    enum ring_oracle_kind kind, void *sring, size_t size, uint32_t index) {
  struct ring_oracle_back back = {.kind = kind, .sring = sring};
  back_attach(&back, size, index);
  return back;
}

uint32_t ring_oracle_back_unconsumed(const struct ring_oracle_back *back) {
  DISPATCH(back->kind, back_unconsumed, back);
}

void ring_oracle_back_take(struct ring_oracle_back *back, void *request) {
  DISPATCH(back->kind, back_take, back, request);
}

void ring_oracle_back_respond(struct ring_oracle_back *back, const void *response) {
  DISPATCH(back->kind, back_respond, back, response);
}

bool ring_oracle_back_publish(struct ring_oracle_back *back) { DISPATCH(back->kind, back_publish, back); }

bool ring_oracle_back_final_check(struct ring_oracle_back *back) {
  DISPATCH(back->kind, back_final_check, back);
}

bool ring_oracle_back_overflow(const struct ring_oracle_back *back, uint32_t producer) {
  DISPATCH(back->kind, back_overflow, back, producer);
}
