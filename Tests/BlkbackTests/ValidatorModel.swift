import Blkback
import RingKit

/// What may be done with a request, in terms that the validator and the model share.
enum Outcome: Equatable {
  case refused(Int16)
  case moved(TransferKind, byte: UInt128, bytes: UInt128, segments: Int)
  case descriptors(TransferKind, sector: UInt64, segments: Int, pages: Int)
  case flush
  case barrier
  case discarded(byte: UInt128, bytes: UInt128, secure: Bool)
  case nothing

  init(_ verdict: BlockVerdict) {
    switch verdict {
    case .transfer(let it):
      self = .moved(
        it.kind, byte: UInt128(it.byteOffset), bytes: UInt128(it.byteCount), segments: it.segmentCount)
    case .indirect(let it):
      self = .descriptors(it.kind, sector: it.sectorNumber, segments: it.segmentCount, pages: it.pageCount)
    case .flush: self = .flush
    case .barrier: self = .barrier
    case .discard(let it):
      self = .discarded(byte: UInt128(it.byteOffset), bytes: UInt128(it.byteCount), secure: it.isSecure)
    case .discardNothing: self = .nothing
    case .reject(let status, _): self = .refused(status.rawValue)
    }
  }
}

/// The rules of blkif.h written slowly and plainly, from raw bytes and in 128-bit sums, to compare with.
struct ValidatorModel {
  let limits: BlockLimits
  let compact: Bool

  func number(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in (0..<count).reversed() { value = value * 256 + UInt64(bytes[offset + index]) }
    return value
  }

  func judge(_ bytes: [UInt8]) -> Outcome {
    let operation = bytes[0]
    let sector = number(bytes, compact ? 12 : 16, 8)
    switch operation {
    case 0, 1: return transfer(operation == 0 ? .read : .write, bytes, sector)
    case 2:
      if !limits.offered.contains(.barrier) { return .refused(-2) }
      return bytes[1] == 0 ? .barrier : transfer(.barrierWrite, bytes, sector)
    case 3:
      if !limits.offered.contains(.flush) { return .refused(-2) }
      return bytes[1] == 0 ? .flush : transfer(.flushThenWrite, bytes, sector)
    case 5:
      if !limits.offered.contains(.discard) { return .refused(-2) }
      return discard(bytes, sector)
    case 6:
      if !limits.offered.contains(.indirect) { return .refused(-2) }
      let segments = Int(number(bytes, 2, 2))
      if bytes[1] > 1 || segments == 0 || segments > limits.maximumIndirectSegments { return .refused(-1) }
      if bytes[1] == 1 && limits.readOnly { return .refused(-1) }
      let pages = (0..<8).first { $0 * 512 + 512 >= segments }.map { $0 + 1 } ?? 99
      return .descriptors(bytes[1] == 0 ? .read : .write, sector: sector, segments: segments, pages: pages)
    default: return .refused(-2)
    }
  }

  func transfer(_ kind: TransferKind, _ bytes: [UInt8], _ sector: UInt64) -> Outcome {
    let count = Int(bytes[1])
    guard count >= 1 && count <= 11 else { return .refused(-1) }
    var segments: [(UInt8, UInt8)] = []
    for index in 0..<count {
      let place = (compact ? 20 : 24) + 8 * index
      segments.append((bytes[place + 4], bytes[place + 5]))
    }
    return transfer(kind, segments, sector)
  }

  func transfer(_ kind: TransferKind, _ segments: [(UInt8, UInt8)], _ sector: UInt64) -> Outcome {
    if limits.readOnly && kind != .read { return .refused(-1) }
    var bytes: UInt128 = 0
    for (first, last) in segments {
      guard Self.isAllowed(first, last, sectorBytes: limits.sectorByteCount) else { return .refused(-1) }
      for _ in first...last { bytes += 512 }
    }
    let start = UInt128(sector) * 512
    if start % UInt128(limits.sectorByteCount) != 0 { return .refused(-1) }
    if start + bytes > UInt128(limits.sectorCount) * 512 { return .refused(-1) }
    return .moved(kind, byte: start, bytes: bytes, segments: segments.count)
  }

  func discard(_ bytes: [UInt8], _ sector: UInt64) -> Outcome {
    if limits.readOnly { return .refused(-1) }
    let count = UInt128(number(bytes, compact ? 20 : 24, 8)) * 512
    let start = UInt128(sector) * 512
    let unit = UInt128(limits.sectorByteCount)
    if count == 0 { return .nothing }
    if start % unit != 0 || count % unit != 0 { return .refused(-1) }
    if start + count > UInt128(limits.sectorCount) * 512 { return .refused(-1) }
    let granularity = UInt128(limits.discardGranularityBytes)
    // Shifted up by whole extents, so that the difference is not negative.
    let shifted = start + granularity * (UInt128(limits.discardAlignmentBytes) / granularity + 1)
    if (shifted - UInt128(limits.discardAlignmentBytes)) % granularity != 0 { return .refused(-1) }
    return .discarded(
      byte: start, bytes: count, secure: bytes[1] % 2 == 1 && limits.offered.contains(.secureDiscard))
  }

  /// The legal (first, last) pairs, listed: whole logical sectors of one 4 KiB page.
  static func isAllowed(_ first: UInt8, _ last: UInt8, sectorBytes: Int) -> Bool {
    legalPairs[sectorBytes]?.contains(UInt16(first) * 256 + UInt16(last)) == true
  }

  private static let legalPairs: [Int: Set<UInt16>] = {
    var table: [Int: Set<UInt16>] = [:]
    for sectorBytes in [512, 1024, 2048, 4096] {
      let step = sectorBytes / 512
      for first in stride(from: 0, to: 8, by: step) {
        for last in stride(from: first + step - 1, to: 8, by: step) {
          table[sectorBytes, default: []].insert(UInt16(first * 256 + last))
        }
      }
    }
    return table
  }()
}

/// Segments in an array, as copied from descriptor pages.
struct ListedSegments: SegmentSource {
  let segments: [BlockSegment]
  func segment(at index: Int) -> BlockSegment { segments[index] }
}

extension SlotCopy {
  init(bytes: [UInt8]) {
    self.init()
    for (offset, byte) in bytes.enumerated() { setUInt8(byte, at: offset) }
  }
  var allBytes: [UInt8] { (0..<SlotCopy.capacity).map { uint8(at: $0) } }
}

/// A direct request with the given segments, as (first, last).
func directSlot(
  _ operation: BlockOperation, sector: UInt64, _ segments: [(UInt8, UInt8)], count: UInt8? = nil,
  abi: BlockABI = .x86_64
) -> SlotCopy {
  let request = BlockRequest(
    operation: operation, segmentCount: count ?? UInt8(segments.count), id: 0x1234_5678_9ABC_DEF0,
    sectorNumber: sector, abi: abi)
  var slot = request.encode()
  for (index, segment) in segments.enumerated() {
    let described = BlockSegment(
      reference: GrantReference(rawValue: 8), firstSector: segment.0, lastSector: segment.1)
    request.setSegment(described, at: index, in: &slot)
  }
  return slot
}

extension RequestValidator {
  /// Decodes and judges.
  func judge(_ slot: SlotCopy, abi: BlockABI = .x86_64) -> BlockVerdict {
    judge(BlockRequest(slot, abi: abi), slot)
  }
}

/// Everything that can be announced.
let everything: BlockOptions = [.flush, .barrier, .discard, .secureDiscard, .indirect]
