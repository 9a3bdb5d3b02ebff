import Blkback
import COracle
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
}

private func oracle(_ abi: BlockABI) -> blkif_oracle_abi {
  abi == .x86_32 ? BLKIF_ORACLE_X86_32 : BLKIF_ORACLE_X86_64
}

private func slotCopy(_ bytes: [UInt8]) -> SlotCopy {
  var slot = SlotCopy()
  for (offset, byte) in bytes.enumerated() { slot.setUInt8(byte, at: offset) }
  return slot
}

private func bytes(_ slot: SlotCopy) -> [UInt8] { (0..<SlotCopy.capacity).map { slot.uint8(at: $0) } }

/// Operations worth meeting more often than one time in 256.
private func someOperation(_ numbers: inout SeededNumbers) -> UInt8 {
  Bool.random(using: &numbers)
    ? UInt8.random(in: 0...7, using: &numbers) : .random(in: 0...255, using: &numbers)
}

/// Blkback's layouts against structures compiled from Xen's own blkif.h.
struct BlkifOracleTests {
  @Test(arguments: BlockABI.allCases)
  func layout(_ abi: BlockABI) {
    let layout = blkif_oracle_layout(oracle(abi))
    #expect(Int(layout.request_size) == abi.requestByteCount)
    #expect(Int(layout.response_size) == abi.responseByteCount)
    #expect(Int(layout.segment_size) == BlockSegment.byteCount)
    #expect(layout.operation == 0 && layout.segment_count == 1 && layout.handle == 2)
    for id in [layout.id, layout.discard_id, layout.indirect_id] { #expect(Int(id) == abi.idOffset) }
    for sector in [layout.sector_number, layout.discard_sector_number, layout.indirect_sector_number] {
      #expect(Int(sector) == abi.sectorNumberOffset)
    }
    #expect(Int(layout.segments) == abi.segmentsOffset)
    #expect(layout.discard_flag == 1 && layout.discard_handle == 2)
    #expect(Int(layout.discard_sectors) == abi.discardSectorCountOffset)
    #expect(layout.indirect_operation == 1 && layout.indirect_segment_count == 2)
    #expect(Int(layout.indirect_handle) == abi.indirectHandleOffset)
    #expect(Int(layout.indirect_references) == abi.indirectReferencesOffset)
    #expect(Int(layout.indirect_size) <= abi.requestByteCount)
    #expect(layout.response_id == 0 && layout.response_operation == 8 && layout.response_status == 10)
    #expect(layout.segment_reference == 0 && layout.segment_first == 4 && layout.segment_last == 5)
  }

  @Test func constants() {
    let header = blkif_oracle_constants()
    #expect(header.read == BlockOperation.read.rawValue)
    #expect(header.write == BlockOperation.write.rawValue)
    #expect(header.barrier == BlockOperation.writeBarrier.rawValue)
    #expect(header.flush == BlockOperation.flush.rawValue)
    #expect(header.discard == BlockOperation.discard.rawValue)
    #expect(header.indirect == BlockOperation.indirect.rawValue)
    #expect(header.secure == BlockRequest.discardSecureFlag)
    #expect(header.okay == BlockStatus.okay.rawValue)
    #expect(header.error == BlockStatus.error.rawValue)
    #expect(header.not_supported == BlockStatus.notSupported.rawValue)
    #expect(Int(header.direct_segments) == maximumDirectSegments)
    #expect(Int(header.indirect_pages) == maximumIndirectPages)
    #expect(segmentsPerIndirectPage * BlockSegment.byteCount == pageByteCount)
  }

  @Test(arguments: BlockABI.allCases)
  func protocolNames(_ abi: BlockABI) throws {
    let which: Int32 = abi == .x86_64 ? 0 : abi == .x86_32 ? 1 : 2
    // Sound: the oracle returns string literals.
    let name = unsafe String(cString: try #require(blkif_oracle_protocol(which)))
    #expect(abi.protocolName == name)
    #expect(BlockABI(protocolName: name) == abi)
  }

  @Test(arguments: ["", "x86_64", "x86_64-abi ", "X86_64-ABI", "powerpc64-abi", "x86_32-abi\0"])
  func unknownProtocol(_ name: String) { #expect(BlockABI(protocolName: name) == nil) }

  /// C writes requests into slots full of noise; Swift reads the same fields out of them.
  @Test(arguments: BlockABI.allCases)
  func decodesWhatTheHeaderEncodes(_ abi: BlockABI) {
    var numbers = SeededNumbers(state: 0xB10C_0001)
    for round in 0..<4_000 {
      var raw = (0..<SlotCopy.capacity).map { _ in UInt8.random(in: 0...255, using: &numbers) }
      var values = blkif_oracle_request(
        operation: someOperation(&numbers), inner_operation: .random(in: 0...255, using: &numbers),
        discard_flag: .random(in: 0...255, using: &numbers),
        segment_count: .random(in: 0...UInt16.max, using: &numbers),
        handle: .random(in: 0...UInt16.max, using: &numbers), id: numbers.next(),
        sector_number: numbers.next(),
        discard_sectors: numbers.next())
      // Sound: the oracle touches only the 128 bytes of the array.
      unsafe blkif_oracle_encode(oracle(abi), &values, &raw)
      let slot = slotCopy(raw)
      let request = BlockRequest(slot, abi: abi)
      let isIndirect = request.operation == .indirect
      let isDiscard = request.operation == .discard
      let count = isIndirect ? values.segment_count : isDiscard ? 0 : values.segment_count & 0xFF
      let matches =
        request.abi == abi && request.operation.rawValue == values.operation && request.id == values.id
        && request.sectorNumber == values.sector_number && request.handle == values.handle
        && request.segmentCount == count
        && request.innerOperation.rawValue == (isIndirect ? values.inner_operation : values.operation)
        && request.responseOperation == request.innerOperation
        && request.discardFlags == (isDiscard ? values.discard_flag : 0)
        && request.discardSectorCount == (isDiscard ? values.discard_sectors : 0)
      #expect(matches, "round \(round): \(request) from \(values)")
      for index in 0..<maximumDirectSegments {
        let expected = unsafe blkif_oracle_segment(oracle(abi), UInt32(index), raw)
        let segment = request.segment(at: index, in: slot)
        if segment.reference.rawValue != expected.reference || segment.firstSector != expected.first
          || segment.lastSector != expected.last
        {
          Issue.record("segment \(index): \(segment) from \(expected)")
        }
      }
      for index in 0..<maximumIndirectPages {
        let expected = unsafe blkif_oracle_reference(oracle(abi), UInt32(index), raw)
        let reference = request.indirectReference(at: index, in: slot).rawValue
        if reference != expected { Issue.record("page \(index): \(reference) for \(expected)") }
      }
    }
  }

  /// Swift writes requests; C reads the same fields.
  @Test(arguments: BlockABI.allCases)
  func encodesWhatTheHeaderDecodes(_ abi: BlockABI) {
    var numbers = SeededNumbers(state: 0xB10C_0002)
    for _ in 0..<4_000 {
      var request = BlockRequest(
        operation: BlockOperation(rawValue: someOperation(&numbers)),
        segmentCount: .random(in: 0...255, using: &numbers), id: numbers.next(), sectorNumber: numbers.next(),
        handle: .random(in: 0...UInt16.max, using: &numbers), abi: abi)
      if request.operation == .indirect {
        request = BlockRequest(
          indirect: BlockOperation(rawValue: .random(in: 0...255, using: &numbers)),
          segmentCount: .random(in: 0...UInt16.max, using: &numbers), id: request.id,
          sectorNumber: request.sectorNumber, handle: request.handle, abi: abi)
      } else if request.operation == .discard {
        request = BlockRequest(
          discarding: numbers.next(), flags: .random(in: 0...255, using: &numbers), id: request.id,
          sectorNumber: request.sectorNumber, handle: request.handle, abi: abi)
      }
      var slot = request.encode()
      let fields = unsafe blkif_oracle_decode(oracle(abi), bytes(slot))
      let matches =
        fields.operation == request.operation.rawValue && fields.id == request.id
        && fields.inner_operation == request.innerOperation.rawValue
        && fields.sector_number == request.sectorNumber && fields.handle == request.handle
        && fields.segment_count == request.segmentCount && fields.discard_flag == request.discardFlags
        && fields.discard_sectors == request.discardSectorCount
      #expect(matches, "\(request) became \(fields)")
      #expect(BlockRequest(slot, abi: abi) == request)
      let index = Int.random(in: 0..<maximumDirectSegments, using: &numbers)
      let segment = BlockSegment(word: numbers.next() & 0xFFFF_FFFF_FFFF)
      request.setSegment(segment, at: index, in: &slot)
      let read = unsafe blkif_oracle_segment(oracle(abi), UInt32(index), bytes(slot))
      #expect(
        segment
          == BlockSegment(
            reference: GrantReference(rawValue: read.reference), firstSector: read.first,
            lastSector: read.last))
      let page = Int.random(in: 0..<maximumIndirectPages, using: &numbers)
      let reference = UInt32.random(in: 0...UInt32.max, using: &numbers)
      request.setIndirectReference(GrantReference(rawValue: reference), at: page, in: &slot)
      #expect(unsafe blkif_oracle_reference(oracle(abi), UInt32(page), bytes(slot)) == reference)
    }
  }

  /// Responses both ways; whatever is no field is zero (XSA-216).
  @Test(arguments: BlockABI.allCases)
  func responses(_ abi: BlockABI) {
    var numbers = SeededNumbers(state: 0xB10C_0003)
    for _ in 0..<4_000 {
      let response = BlockResponse(
        id: numbers.next(), operation: BlockOperation(rawValue: .random(in: 0...255, using: &numbers)),
        status: BlockStatus(rawValue: .random(in: Int16.min...Int16.max, using: &numbers)))
      let encoded = bytes(response.encode())
      var id: UInt64 = 0
      var operation: UInt8 = 0
      var status: Int16 = 0
      unsafe blkif_oracle_decode_response(oracle(abi), encoded, &id, &operation, &status)
      #expect(
        id == response.id && operation == response.operation.rawValue && status == response.status.rawValue)
      #expect(encoded[9] == 0 && encoded[12...].allSatisfy { $0 == 0 }, "padding of \(response)")

      var raw = (0..<SlotCopy.capacity).map { _ in UInt8.random(in: 0...255, using: &numbers) }
      unsafe blkif_oracle_encode_response(oracle(abi), id, operation, status, &raw)
      #expect(BlockResponse(slotCopy(raw)) == response)
    }
  }
}
