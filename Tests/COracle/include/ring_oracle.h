// Rings as the macros of ring.h make them, behind plain functions, for comparison with RingKit's own.
#ifndef RINGBACK_RING_ORACLE_H
#define RINGBACK_RING_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Protocols by the bytes of their requests and responses.
enum ring_oracle_kind {
  RING_ORACLE_BLKIF_64,   ///< 112 and 16
  RING_ORACLE_BLKIF_32,   ///< 108 and 12
  RING_ORACLE_NETIF_TX,   ///< 12 and 4
  RING_ORACLE_NETIF_RX,   ///< 8 and 8
  RING_ORACLE_NETIF_CTRL  ///< 16 and 8
};

/// The private variables of one end.
struct ring_oracle_front {
  enum ring_oracle_kind kind;
  uint32_t req_prod_pvt, rsp_cons, nr_ents;
  void *sring;
};

struct ring_oracle_back {
  enum ring_oracle_kind kind;
  uint32_t rsp_prod_pvt, req_cons, nr_ents;
  void *sring;
};

size_t ring_oracle_request_size(enum ring_oracle_kind kind);
size_t ring_oracle_response_size(enum ring_oracle_kind kind);
size_t ring_oracle_slot_offset(enum ring_oracle_kind kind, void *sring, uint32_t slots, uint32_t index);

/// SHARED_RING_INIT with both producers at `index`, then FRONT_RING_ATTACH there.
struct ring_oracle_front ring_oracle_front_init(
    enum ring_oracle_kind kind, void *sring, size_t size, uint32_t index);
uint32_t ring_oracle_front_free(const struct ring_oracle_front *front);
void ring_oracle_front_place(struct ring_oracle_front *front, const void *request);
bool ring_oracle_front_push(struct ring_oracle_front *front);
uint32_t ring_oracle_front_unconsumed(const struct ring_oracle_front *front);
void ring_oracle_front_take(struct ring_oracle_front *front, void *response);
bool ring_oracle_front_final_check(struct ring_oracle_front *front);
bool ring_oracle_front_overflow(const struct ring_oracle_front *front, uint32_t producer);

/// BACK_RING_ATTACH at `index`.
struct ring_oracle_back ring_oracle_back_attach(
    enum ring_oracle_kind kind, void *sring, size_t size, uint32_t index);
uint32_t ring_oracle_back_unconsumed(const struct ring_oracle_back *back);
void ring_oracle_back_take(struct ring_oracle_back *back, void *request);
void ring_oracle_back_respond(struct ring_oracle_back *back, const void *response);
bool ring_oracle_back_publish(struct ring_oracle_back *back);
bool ring_oracle_back_final_check(struct ring_oracle_back *back);
bool ring_oracle_back_overflow(const struct ring_oracle_back *back, uint32_t producer);

#endif
