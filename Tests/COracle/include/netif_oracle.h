// The layouts of netif.h as a C compiler sees them, for comparison with Netback's own.
#ifndef RINGBACK_NETIF_ORACLE_H
#define RINGBACK_NETIF_ORACLE_H

#include <stdint.h>

/// Sizes and offsets by sizeof and offsetof.
struct netif_oracle_layout {
  uint32_t tx_request_size, tx_response_size, rx_request_size, rx_response_size;
  uint32_t extra_size, ctrl_request_size, ctrl_response_size, gref_size;
  uint32_t tx_slot_size, rx_slot_size, ctrl_slot_size;
  uint32_t tx_slots, rx_slots, ctrl_slots;
};
struct netif_oracle_layout netif_oracle_layout(void);

/// Constants of the header.
struct netif_oracle_constants {
  uint32_t tx_csum_blank, tx_data_validated, tx_more_data, tx_extra_info;
  uint32_t rx_csum_blank, rx_data_validated, rx_more_data, rx_extra_info, rx_gso_prefix;
  int16_t dropped, error, okay, null;
  uint32_t extra_none, extra_gso, extra_mcast_add, extra_mcast_del, extra_hash, extra_max, extra_flag_more;
  uint32_t gso_none, gso_tcpv4, gso_tcpv6;
  uint32_t hash_ipv4, hash_ipv4_tcp, hash_ipv6, hash_ipv6_tcp;
  uint32_t hash_ipv4_bit, hash_ipv4_tcp_bit, hash_ipv6_bit, hash_ipv6_tcp_bit;
  uint32_t algorithm_none, algorithm_toeplitz;
  uint32_t get_hash_flags, set_hash_flags, set_hash_key, get_hash_mapping_size, set_hash_mapping_size,
      set_hash_mapping, set_hash_algorithm, get_gref_mapping_size, add_gref_mapping, del_gref_mapping;
  uint32_t success, not_supported, invalid_parameter, buffer_overflow;
  uint32_t gref_readonly;
  uint32_t slots_min, max_tx_size;
};
struct netif_oracle_constants netif_oracle_constants(void);

/// Messages as plain values.
struct netif_oracle_tx_request {
  uint32_t gref;
  uint16_t offset, flags, id, size;
};
struct netif_oracle_rx_request {
  uint16_t id;
  uint32_t gref;
};
struct netif_oracle_rx_response {
  uint16_t id, offset, flags;
  int16_t status;
};
struct netif_oracle_ctrl_request {
  uint16_t id, type;
  uint32_t data[3];
};
struct netif_oracle_ctrl_response {
  uint16_t id, type;
  uint32_t status, data;
};
struct netif_oracle_gref {
  uint32_t ref;
  uint16_t flags, status;
};
/// An extra info, with every member of its union as its bytes are read.
struct netif_oracle_extra {
  uint8_t type, flags;
  uint16_t gso_size;
  uint8_t gso_type;
  uint8_t address[6];
  uint8_t hash_type, hash_algorithm;
  uint8_t hash_value[4];
};

/// Fill `slot` (128 bytes, left as it is where no field lies) from `values`.
void netif_oracle_encode_tx_request(const struct netif_oracle_tx_request *values, void *slot);
void netif_oracle_encode_tx_response(uint16_t id, int16_t status, void *slot);
void netif_oracle_encode_rx_request(const struct netif_oracle_rx_request *values, void *slot);
void netif_oracle_encode_rx_response(const struct netif_oracle_rx_response *values, void *slot);
void netif_oracle_encode_ctrl_request(const struct netif_oracle_ctrl_request *values, void *slot);
void netif_oracle_encode_ctrl_response(const struct netif_oracle_ctrl_response *values, void *slot);
void netif_oracle_encode_gref(const struct netif_oracle_gref *values, void *slot);
void netif_oracle_encode_gso(uint8_t flags, uint16_t size, uint8_t type, void *slot);
void netif_oracle_encode_mcast(uint8_t type, uint8_t flags, const uint8_t *address, void *slot);
void netif_oracle_encode_hash(
    uint8_t flags, uint8_t type, uint8_t algorithm, const uint8_t *value, void *slot);

/// Read `slot` by the same structures.
struct netif_oracle_tx_request netif_oracle_decode_tx_request(const void *slot);
void netif_oracle_decode_tx_response(const void *slot, uint16_t *id, int16_t *status);
struct netif_oracle_rx_request netif_oracle_decode_rx_request(const void *slot);
struct netif_oracle_rx_response netif_oracle_decode_rx_response(const void *slot);
struct netif_oracle_ctrl_request netif_oracle_decode_ctrl_request(const void *slot);
struct netif_oracle_ctrl_response netif_oracle_decode_ctrl_response(const void *slot);
struct netif_oracle_gref netif_oracle_decode_gref(const void *slot);
struct netif_oracle_extra netif_oracle_decode_extra(const void *slot);

/// The header's own Toeplitz hash.
uint32_t netif_oracle_toeplitz(
    const uint8_t *key, uint32_t key_size, const uint8_t *input, uint32_t input_size);

#endif
