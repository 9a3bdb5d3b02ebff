import COracle
import Netback
import RingKit
import Testing

/// SplitMix64: the same numbers for the same seed on every machine.
private struct SeededNumbers: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }

  mutating func any<Value: FixedWidthInteger>(_: Value.Type = Value.self) -> Value {
    Value(truncatingIfNeeded: next())
  }

  mutating func noise(_ count: Int = SlotCopy.capacity) -> [UInt8] { (0..<count).map { _ in any() } }
}

private func slotCopy(_ bytes: [UInt8]) -> SlotCopy {
  var slot = SlotCopy()
  for (offset, byte) in bytes.enumerated() { slot.setUInt8(byte, at: offset) }
  return slot
}

private func bytes(_ slot: SlotCopy) -> [UInt8] { (0..<SlotCopy.capacity).map { slot.uint8(at: $0) } }

/// Netback's layouts against structures compiled from Xen's own netif.h: C writes into slots full of noise and
/// Swift reads, Swift writes and C reads. What Swift writes is zero where no field lies (XSA-216).
struct NetifOracleTests {
  static let rounds = 2_000

  @Test func sizes() throws {
    let layout = netif_oracle_layout()
    #expect(Int(layout.tx_request_size) == NetTxRequest.byteCount)
    #expect(Int(layout.tx_response_size) == NetTxResponse.byteCount)
    #expect(Int(layout.rx_request_size) == NetRxRequest.byteCount)
    #expect(Int(layout.rx_response_size) == NetRxResponse.byteCount)
    #expect(Int(layout.extra_size) == NetExtraInfo.byteCount)
    #expect(Int(layout.ctrl_request_size) == NetControlRequest.byteCount)
    #expect(Int(layout.ctrl_response_size) == NetControlResponse.byteCount)
    #expect(Int(layout.gref_size) == NetGrantEntry.byteCount)
    #expect(NetGrantEntry.maximumCount == 512)
    #expect(Int(layout.tx_slots) == NetLimits.ringSlotCount && layout.rx_slots == layout.tx_slots)
    #expect(Int(layout.ctrl_slots) == NetLimits.controlRingSlotCount)
    let rings = [
      (layout.tx_slot_size, layout.tx_slots, NetTxRequest.byteCount),
      (layout.rx_slot_size, layout.rx_slots, NetRxRequest.byteCount),
      (layout.ctrl_slot_size, layout.ctrl_slots, NetControlRequest.byteCount),
    ]
    for (size, slots, byteCount) in rings {
      #expect(Int(size) == byteCount)
      let pages = try MappedPages.anonymous(pageCount: 1)
      #expect(FrontRing(pages: pages, slotByteCount: byteCount).slotCount == Int(slots))
    }
  }

  @Test func constants() {
    let header = netif_oracle_constants()
    #expect(header.tx_csum_blank == UInt32(NetTxFlags.checksumBlank.rawValue))
    #expect(header.tx_data_validated == UInt32(NetTxFlags.dataValidated.rawValue))
    #expect(header.tx_more_data == UInt32(NetTxFlags.moreData.rawValue))
    #expect(header.tx_extra_info == UInt32(NetTxFlags.extraInfo.rawValue))
    #expect(header.rx_csum_blank == UInt32(NetRxFlags.checksumBlank.rawValue))
    #expect(header.rx_data_validated == UInt32(NetRxFlags.dataValidated.rawValue))
    #expect(header.rx_more_data == UInt32(NetRxFlags.moreData.rawValue))
    #expect(header.rx_extra_info == UInt32(NetRxFlags.extraInfo.rawValue))
    #expect(header.rx_gso_prefix == UInt32(NetRxFlags.segmentationPrefix.rawValue))
    #expect(header.dropped == NetStatus.dropped.rawValue && header.error == NetStatus.error.rawValue)
    #expect(header.okay == NetStatus.okay.rawValue && header.null == NetStatus.null.rawValue)
    #expect(header.extra_none == UInt32(NetExtraType.none.rawValue))
    #expect(header.extra_gso == UInt32(NetExtraType.segmentation.rawValue))
    #expect(header.extra_mcast_add == UInt32(NetExtraType.multicastAdd.rawValue))
    #expect(header.extra_mcast_del == UInt32(NetExtraType.multicastDelete.rawValue))
    #expect(header.extra_hash == UInt32(NetExtraType.hash.rawValue))
    // Linux' copy of the header has one type more than Xen's.
    #expect(header.extra_max == UInt32(NetExtraType.headroom.rawValue))
    #expect(header.gso_none == UInt32(NetSegmentationType.none.rawValue))
    #expect(header.gso_tcpv4 == UInt32(NetSegmentationType.tcpIPv4.rawValue))
    #expect(header.gso_tcpv6 == UInt32(NetSegmentationType.tcpIPv6.rawValue))
    let hashes: [(NetHashType, UInt32, UInt32)] = [
      (.ipv4, header.hash_ipv4, header.hash_ipv4_bit),
      (.ipv4TCP, header.hash_ipv4_tcp, header.hash_ipv4_tcp_bit),
      (.ipv6, header.hash_ipv6, header.hash_ipv6_bit),
      (.ipv6TCP, header.hash_ipv6_tcp, header.hash_ipv6_tcp_bit),
    ]
    for (type, flag, bit) in hashes {
      #expect(UInt32(type.rawValue) == bit && NetHashTypes(type).rawValue == flag)
    }
    #expect(hashes.reduce(0) { $0 | $1.1 } == NetHashTypes.all.rawValue)
    #expect(header.algorithm_none == NetHashAlgorithm.none.rawValue)
    #expect(header.algorithm_toeplitz == NetHashAlgorithm.toeplitz.rawValue)
    #expect(header.gref_readonly == UInt32(NetGrantEntry.readOnlyFlag))
    #expect(Int(header.slots_min) == NetLimits.slotCount)
    #expect(Int(header.max_tx_size) == NetLimits.packetByteCount)
  }

  @Test func controlConstants() {
    let header = netif_oracle_constants()
    let types: [(NetControlType, UInt32)] = [
      (.getHashFlags, header.get_hash_flags), (.setHashFlags, header.set_hash_flags),
      (.setHashKey, header.set_hash_key), (.getHashMappingSize, header.get_hash_mapping_size),
      (.setHashMappingSize, header.set_hash_mapping_size), (.setHashMapping, header.set_hash_mapping),
      (.setHashAlgorithm, header.set_hash_algorithm), (.getGrantMappingSize, header.get_gref_mapping_size),
      (.addGrantMapping, header.add_gref_mapping), (.deleteGrantMapping, header.del_gref_mapping),
    ]
    for (type, number) in types { #expect(UInt32(type.rawValue) == number) }
    #expect(header.success == NetControlStatus.success.rawValue)
    #expect(header.not_supported == NetControlStatus.notSupported.rawValue)
    #expect(header.invalid_parameter == NetControlStatus.invalidParameter.rawValue)
    #expect(header.buffer_overflow == NetControlStatus.bufferOverflow.rawValue)
  }

  @Test func transmitSlots() {
    var numbers = SeededNumbers(state: 0x4E37_0001)
    for _ in 0..<Self.rounds {
      var values = netif_oracle_tx_request(
        gref: numbers.any(), offset: numbers.any(), flags: numbers.any(), id: numbers.any(),
        size: numbers.any())
      let request = NetTxRequest(
        reference: GrantReference(rawValue: values.gref), offset: values.offset,
        flags: NetTxFlags(rawValue: values.flags), id: values.id, size: values.size)
      var raw = numbers.noise()
      // Sound: the oracle touches only the 128 bytes of the array, here and below.
      unsafe netif_oracle_encode_tx_request(&values, &raw)
      #expect(NetTxRequest(slotCopy(raw)) == request)
      let encoded = bytes(request.encode())
      let read = unsafe netif_oracle_decode_tx_request(encoded)
      #expect(
        read.gref == values.gref && read.offset == values.offset && read.flags == values.flags
          && read.id == values.id && read.size == values.size)
      #expect(encoded[NetTxRequest.byteCount...].allSatisfy { $0 == 0 })

      let response = NetTxResponse(id: numbers.any(), status: NetStatus(rawValue: numbers.any()))
      raw = numbers.noise()
      unsafe netif_oracle_encode_tx_response(response.id, response.status.rawValue, &raw)
      #expect(NetTxResponse(slotCopy(raw)) == response)
      let answer = bytes(response.encode())
      var id: UInt16 = 0
      var status: Int16 = 0
      unsafe netif_oracle_decode_tx_response(answer, &id, &status)
      #expect(id == response.id && status == response.status.rawValue)
      #expect(answer[NetTxResponse.byteCount...].allSatisfy { $0 == 0 })
    }
  }

  @Test func receiveSlots() {
    var numbers = SeededNumbers(state: 0x4E37_0002)
    for _ in 0..<Self.rounds {
      var values = netif_oracle_rx_request(id: numbers.any(), gref: numbers.any())
      let request = NetRxRequest(id: values.id, reference: GrantReference(rawValue: values.gref))
      var raw = numbers.noise()
      unsafe netif_oracle_encode_rx_request(&values, &raw)
      #expect(NetRxRequest(slotCopy(raw)) == request)
      let encoded = bytes(request.encode())
      let read = unsafe netif_oracle_decode_rx_request(encoded)
      #expect(read.id == values.id && read.gref == values.gref)
      #expect(encoded[2] == 0 && encoded[3] == 0 && encoded[8...].allSatisfy { $0 == 0 })

      var answer = netif_oracle_rx_response(
        id: numbers.any(), offset: numbers.any(), flags: numbers.any(), status: numbers.any())
      let response = NetRxResponse(
        id: answer.id, offset: answer.offset, flags: NetRxFlags(rawValue: answer.flags),
        status: answer.status)
      raw = numbers.noise()
      unsafe netif_oracle_encode_rx_response(&answer, &raw)
      #expect(NetRxResponse(slotCopy(raw)) == response)
      let back = bytes(response.encode())
      let told = unsafe netif_oracle_decode_rx_response(back)
      #expect(
        told.id == answer.id && told.offset == answer.offset && told.flags == answer.flags
          && told.status == answer.status)
      #expect(back[8...].allSatisfy { $0 == 0 })
    }
  }

  @Test func controlSlots() {
    var numbers = SeededNumbers(state: 0x4E37_0003)
    for _ in 0..<Self.rounds {
      var values = netif_oracle_ctrl_request(
        id: numbers.any(), type: numbers.any(), data: (numbers.any(), numbers.any(), numbers.any()))
      let request = NetControlRequest(
        id: values.id, type: NetControlType(rawValue: values.type), values.data.0, values.data.1,
        values.data.2)
      var raw = numbers.noise()
      unsafe netif_oracle_encode_ctrl_request(&values, &raw)
      #expect(NetControlRequest(slotCopy(raw)) == request)
      let encoded = bytes(request.encode())
      let read = unsafe netif_oracle_decode_ctrl_request(encoded)
      #expect(read.id == values.id && read.type == values.type && read.data == values.data)
      #expect(encoded[16...].allSatisfy { $0 == 0 })

      let status = NetControlStatus(rawValue: numbers.any() % 4) ?? .success
      let response = NetControlResponse(
        id: numbers.any(), type: NetControlType(rawValue: numbers.any()), status: status,
        data: numbers.any())
      var answer = netif_oracle_ctrl_response(
        id: response.id, type: response.type.rawValue, status: response.status, data: response.data)
      raw = numbers.noise()
      unsafe netif_oracle_encode_ctrl_response(&answer, &raw)
      #expect(NetControlResponse(slotCopy(raw)) == response)
      let back = bytes(response.encode())
      let told = unsafe netif_oracle_decode_ctrl_response(back)
      #expect(
        told.id == answer.id && told.type == answer.type && told.status == answer.status
          && told.data == answer.data)
      #expect(back[NetControlResponse.byteCount...].allSatisfy { $0 == 0 })
    }
  }

  @Test func stagingGrants() {
    var numbers = SeededNumbers(state: 0x4E37_0004)
    for _ in 0..<Self.rounds {
      var values = netif_oracle_gref(ref: numbers.any(), flags: numbers.any(), status: numbers.any())
      let entry = NetGrantEntry(
        reference: GrantReference(rawValue: values.ref), flags: values.flags, status: values.status)
      var raw = numbers.noise()
      unsafe netif_oracle_encode_gref(&values, &raw)
      #expect(NetGrantEntry(word: slotCopy(raw).uint64(at: 0)) == entry)
      var slot = SlotCopy()
      slot.setUInt64(entry.word, at: 0)
      let read = unsafe netif_oracle_decode_gref(bytes(slot))
      #expect(read.ref == values.ref && read.flags == values.flags && read.status == values.status)
    }
  }

  @Test func extraInfos() throws {
    var numbers = SeededNumbers(state: 0x4E37_0005)
    for _ in 0..<Self.rounds {
      let flags: UInt8 = numbers.any()
      let hasMore = flags & 1 == 1
      var raw = numbers.noise()
      let (size, kind): (UInt16, UInt8) = (numbers.any(), numbers.any())
      unsafe netif_oracle_encode_gso(flags, size, kind, &raw)
      var extra = NetExtraInfo(slotCopy(raw))
      #expect(extra.type == .segmentation && extra.hasMore == hasMore && extra.segmentSize == size)
      #expect(extra.segmentationType.rawValue == kind)
      extra = NetExtraInfo(segmentation: NetSegmentationType(rawValue: kind), size: size)
      extra.hasMore = hasMore
      var encoded = bytes(extra.encode())
      var read = unsafe netif_oracle_decode_extra(encoded)
      #expect(read.type == 1 && read.flags == flags & 1 && read.gso_size == size && read.gso_type == kind)
      #expect(encoded[5...].allSatisfy { $0 == 0 })

      let octets = numbers.noise(6)
      let address = EthernetAddress(rawValue: octets.reduce(0) { $0 << 8 | UInt64($1) })
      let isAdded = Bool.random(using: &numbers)
      raw = numbers.noise()
      unsafe netif_oracle_encode_mcast(isAdded ? 2 : 3, flags, octets, &raw)
      extra = NetExtraInfo(slotCopy(raw))
      #expect(extra.type == (isAdded ? .multicastAdd : .multicastDelete) && extra.address == address)
      encoded = bytes(NetExtraInfo(multicast: address, isAdded: isAdded).encode())
      read = unsafe netif_oracle_decode_extra(encoded)
      let told = [
        read.address.0, read.address.1, read.address.2, read.address.3, read.address.4, read.address.5,
      ]
      #expect(read.type == (isAdded ? 2 : 3) && read.flags == 0 && told == octets)
      #expect(encoded[8...].allSatisfy { $0 == 0 })

      let type = try #require(NetHashType(rawValue: numbers.any() % 4))
      let hash = NetHash(type: type, algorithm: numbers.any(), value: numbers.any())
      // The lowest byte comes first.
      let value = (0..<4).map { UInt8(truncatingIfNeeded: hash.value >> ($0 * 8)) }
      raw = numbers.noise()
      unsafe netif_oracle_encode_hash(flags, type.rawValue, hash.algorithm, value, &raw)
      #expect(NetExtraInfo(slotCopy(raw)).hash == hash)
      read = unsafe netif_oracle_decode_extra(bytes(NetExtraInfo(hash: hash).encode()))
      let back = [read.hash_value.0, read.hash_value.1, read.hash_value.2, read.hash_value.3]
      #expect(read.type == 4 && read.hash_type == type.rawValue && read.hash_algorithm == hash.algorithm)
      #expect(back == value)
    }
  }

  /// The header's own function, with keys of every length and inputs of every length.
  @Test func toeplitz() throws {
    var numbers = SeededNumbers(state: 0x4E37_0006)
    let pool = try BufferPool(byteCount: pageByteCount)
    let buffer = try #require(pool.allocate(byteCount: pageByteCount))
    let frame = pool.bytes(of: buffer)
    for round in 0..<Self.rounds {
      let key = numbers.noise(round % (NetHashState.maximumKeyByteCount + 1))
      let input = numbers.noise(round % (ToeplitzHash.inputByteCount + 1))
      for (offset, byte) in input.enumerated() { frame[offset] = byte }
      let hash = ToeplitzHash(key: key)
      // In two pieces, as addresses and ports are.
      let cut = Int.random(in: 0...input.count, using: &numbers)
      var value: UInt32 = 0
      hash.add(cut, at: 0, of: frame, position: 0, to: &value)
      hash.add(input.count - cut, at: cut, of: frame, position: cut, to: &value)
      let expected = unsafe netif_oracle_toeplitz(key, UInt32(key.count), input, UInt32(input.count))
      #expect(value == expected, "key of \(key.count), input of \(input.count)")
    }
  }
}
