#include "netif_oracle.h"

#include <stddef.h>
#include <string.h>

#define XEN_NETIF_DEFINE_TOEPLITZ
#include <xen/io/netif.h>

struct netif_oracle_layout netif_oracle_layout(void) {
  return (struct netif_oracle_layout){
      .tx_request_size = sizeof(struct netif_tx_request),
      .tx_response_size = sizeof(struct netif_tx_response),
      .rx_request_size = sizeof(struct netif_rx_request),
      .rx_response_size = sizeof(struct netif_rx_response),
      .extra_size = sizeof(struct netif_extra_info),
      .ctrl_request_size = sizeof(struct xen_netif_ctrl_request),
      .ctrl_response_size = sizeof(struct xen_netif_ctrl_response),
      .gref_size = sizeof(struct xen_netif_gref),
      .tx_slot_size = sizeof(union netif_tx_sring_entry),
      .rx_slot_size = sizeof(union netif_rx_sring_entry),
      .ctrl_slot_size = sizeof(union xen_netif_ctrl_sring_entry),
      .tx_slots = __CONST_RING_SIZE(netif_tx, 4096),
      .rx_slots = __CONST_RING_SIZE(netif_rx, 4096),
      .ctrl_slots = __CONST_RING_SIZE(xen_netif_ctrl, 4096)};
}

struct netif_oracle_constants netif_oracle_constants(void) {
  return (struct netif_oracle_constants){
      .tx_csum_blank = NETTXF_csum_blank,
      .tx_data_validated = NETTXF_data_validated,
      .tx_more_data = NETTXF_more_data,
      .tx_extra_info = NETTXF_extra_info,
      .rx_csum_blank = NETRXF_csum_blank,
      .rx_data_validated = NETRXF_data_validated,
      .rx_more_data = NETRXF_more_data,
      .rx_extra_info = NETRXF_extra_info,
      .rx_gso_prefix = NETRXF_gso_prefix,
      .dropped = NETIF_RSP_DROPPED,
      .error = NETIF_RSP_ERROR,
      .okay = NETIF_RSP_OKAY,
      .null = NETIF_RSP_NULL,
      .extra_none = XEN_NETIF_EXTRA_TYPE_NONE,
      .extra_gso = XEN_NETIF_EXTRA_TYPE_GSO,
      .extra_mcast_add = XEN_NETIF_EXTRA_TYPE_MCAST_ADD,
      .extra_mcast_del = XEN_NETIF_EXTRA_TYPE_MCAST_DEL,
      .extra_hash = XEN_NETIF_EXTRA_TYPE_HASH,
      .extra_max = XEN_NETIF_EXTRA_TYPE_MAX,
      .extra_flag_more = XEN_NETIF_EXTRA_FLAG_MORE,
      .gso_none = XEN_NETIF_GSO_TYPE_NONE,
      .gso_tcpv4 = XEN_NETIF_GSO_TYPE_TCPV4,
      .gso_tcpv6 = XEN_NETIF_GSO_TYPE_TCPV6,
      .hash_ipv4 = XEN_NETIF_CTRL_HASH_TYPE_IPV4,
      .hash_ipv4_tcp = XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP,
      .hash_ipv6 = XEN_NETIF_CTRL_HASH_TYPE_IPV6,
      .hash_ipv6_tcp = XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP,
      .hash_ipv4_bit = _XEN_NETIF_CTRL_HASH_TYPE_IPV4,
      .hash_ipv4_tcp_bit = _XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP,
      .hash_ipv6_bit = _XEN_NETIF_CTRL_HASH_TYPE_IPV6,
      .hash_ipv6_tcp_bit = _XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP,
      .algorithm_none = XEN_NETIF_CTRL_HASH_ALGORITHM_NONE,
      .algorithm_toeplitz = XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ,
      .get_hash_flags = XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS,
      .set_hash_flags = XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS,
      .set_hash_key = XEN_NETIF_CTRL_TYPE_SET_HASH_KEY,
      .get_hash_mapping_size = XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE,
      .set_hash_mapping_size = XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE,
      .set_hash_mapping = XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING,
      .set_hash_algorithm = XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM,
      .get_gref_mapping_size = XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE,
      .add_gref_mapping = XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING,
      .del_gref_mapping = XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING,
      .success = XEN_NETIF_CTRL_STATUS_SUCCESS,
      .not_supported = XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED,
      .invalid_parameter = XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER,
      .buffer_overflow = XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW,
      .gref_readonly = XEN_NETIF_CTRLF_GREF_readonly,
      .slots_min = XEN_NETIF_NR_SLOTS_MIN,
      .max_tx_size = XEN_NETIF_MAX_TX_SIZE};
}

// A structure is copied out of the slot, changed and copied back, so that bytes without a field keep what the
// caller put there.
#define CHANGE(TYPE, ASSIGNMENTS)  \
  do {                             \
    TYPE it;                       \
    memcpy(&it, slot, sizeof it);  \
    ASSIGNMENTS;                   \
    memcpy(slot, &it, sizeof it);  \
  } while (0)

#define READ(TYPE) \
  TYPE it;         \
  memcpy(&it, slot, sizeof it)

void netif_oracle_encode_tx_request(const struct netif_oracle_tx_request *values, void *slot) {
  CHANGE(struct netif_tx_request, (it.gref = values->gref, it.offset = values->offset,
                                   it.flags = values->flags, it.id = values->id, it.size = values->size));
}

struct netif_oracle_tx_request netif_oracle_decode_tx_request(const void *slot) {
  READ(struct netif_tx_request);
  return (struct netif_oracle_tx_request){it.gref, it.offset, it.flags, it.id, it.size};
}

void netif_oracle_encode_tx_response(uint16_t id, int16_t status, void *slot) {
  CHANGE(struct netif_tx_response, (it.id = id, it.status = status));
}

void netif_oracle_decode_tx_response(const void *slot, uint16_t *id, int16_t *status) {
  READ(struct netif_tx_response);
  *id = it.id, *status = it.status;
}

void netif_oracle_encode_rx_request(const struct netif_oracle_rx_request *values, void *slot) {
  CHANGE(struct netif_rx_request, (it.id = values->id, it.gref = values->gref));
}

struct netif_oracle_rx_request netif_oracle_decode_rx_request(const void *slot) {
  READ(struct netif_rx_request);
  return (struct netif_oracle_rx_request){it.id, it.gref};
}

void netif_oracle_encode_rx_response(const struct netif_oracle_rx_response *values, void *slot) {
  CHANGE(struct netif_rx_response, (it.id = values->id, it.offset = values->offset, it.flags = values->flags,
                                    it.status = values->status));
}

struct netif_oracle_rx_response netif_oracle_decode_rx_response(const void *slot) {
  READ(struct netif_rx_response);
  return (struct netif_oracle_rx_response){it.id, it.offset, it.flags, it.status};
}

void netif_oracle_encode_ctrl_request(const struct netif_oracle_ctrl_request *values, void *slot) {
  CHANGE(struct xen_netif_ctrl_request,
         (it.id = values->id, it.type = values->type, memcpy(it.data, values->data, sizeof it.data)));
}

struct netif_oracle_ctrl_request netif_oracle_decode_ctrl_request(const void *slot) {
  READ(struct xen_netif_ctrl_request);
  return (struct netif_oracle_ctrl_request){it.id, it.type, {it.data[0], it.data[1], it.data[2]}};
}

void netif_oracle_encode_ctrl_response(const struct netif_oracle_ctrl_response *values, void *slot) {
  CHANGE(struct xen_netif_ctrl_response, (it.id = values->id, it.type = values->type,
                                          it.status = values->status, it.data = values->data));
}

struct netif_oracle_ctrl_response netif_oracle_decode_ctrl_response(const void *slot) {
  READ(struct xen_netif_ctrl_response);
  return (struct netif_oracle_ctrl_response){it.id, it.type, it.status, it.data};
}

void netif_oracle_encode_gref(const struct netif_oracle_gref *values, void *slot) {
  CHANGE(struct xen_netif_gref, (it.ref = values->ref, it.flags = values->flags, it.status = values->status));
}

struct netif_oracle_gref netif_oracle_decode_gref(const void *slot) {
  READ(struct xen_netif_gref);
  return (struct netif_oracle_gref){it.ref, it.flags, it.status};
}

void netif_oracle_encode_gso(uint8_t flags, uint16_t size, uint8_t type, void *slot) {
  CHANGE(struct netif_extra_info, (it.type = XEN_NETIF_EXTRA_TYPE_GSO, it.flags = flags, it.u.gso.size = size,
                                   it.u.gso.type = type));
}

void netif_oracle_encode_mcast(uint8_t type, uint8_t flags, const uint8_t *address, void *slot) {
  CHANGE(struct netif_extra_info,
         (it.type = type, it.flags = flags, memcpy(it.u.mcast.addr, address, sizeof it.u.mcast.addr)));
}

void netif_oracle_encode_hash(
    uint8_t flags, uint8_t type, uint8_t algorithm, const uint8_t *value, void *slot) {
  CHANGE(struct netif_extra_info,
         (it.type = XEN_NETIF_EXTRA_TYPE_HASH, it.flags = flags, it.u.hash.type = type,
          it.u.hash.algorithm = algorithm, memcpy(it.u.hash.value, value, sizeof it.u.hash.value)));
}

struct netif_oracle_extra netif_oracle_decode_extra(const void *slot) {
  READ(struct netif_extra_info);
  struct netif_oracle_extra values = {
      .type = it.type,
      .flags = it.flags,
      .gso_size = it.u.gso.size,
      .gso_type = it.u.gso.type,
      .hash_type = it.u.hash.type,
      .hash_algorithm = it.u.hash.algorithm};
  memcpy(values.address, it.u.mcast.addr, sizeof values.address);
  memcpy(values.hash_value, it.u.hash.value, sizeof values.hash_value);
  return values;
}

uint32_t netif_oracle_toeplitz(
    const uint8_t *key, uint32_t key_size, const uint8_t *input, uint32_t input_size) {
  return xen_netif_toeplitz_hash(key, key_size, input, input_size);
}
