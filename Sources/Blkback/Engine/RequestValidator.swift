public import RingKit

/// Decides what may be done with a request: every bound a guest can break is tested here and nowhere else.
///
/// It is pure: it sees the private copy of a slot and the limits in force, and nothing it computes can
/// overflow, whatever the guest wrote. Rules come from blkif.h as Xen 4.20 words it (all sectors are 512
/// bytes) and from the advisories named beside them. Of several faults the first in this order is reported:
/// operation, permission, number of segments, each segment, sector number, range.
@frozen
public struct RequestValidator: Sendable, BitwiseCopyable {
  /// The limits in force; a resize makes a new validator.
  public let limits: BlockLimits

  /// Judges by `limits`.
  @inlinable public init(limits: BlockLimits) { self.limits = limits }

  /// Judges `request`, which was decoded from `slot`.
  @inlinable
  public func judge(_ request: BlockRequest, _ slot: SlotCopy) -> BlockVerdict {
    switch request.operation {
    case .read: judgeDirect(request, slot, .read)
    case .write: judgeDirect(request, slot, .write)
    case .flush: judgeOrdered(request, slot, .flush, .flushThenWrite, .flush)
    case .writeBarrier: judgeOrdered(request, slot, .barrier, .barrierWrite, .barrier)
    case .discard: judgeDiscard(request)
    case .indirect: judgeIndirect(request)
    default: .reject(.notSupported, .unknownOperation)
    }
  }

  /// Judges the segments of an indirect request, once private copies of its descriptor pages exist.
  ///
  /// `source` is asked for segments 0..<`indirect.segmentCount`, once each and in order. The verdict is a
  /// ``BlockVerdict/transfer(_:)`` or a rejection.
  @inlinable
  public func judgeSegments<Source: SegmentSource & ~Copyable & ~Escapable>(
    of indirect: IndirectTransfer, _ source: borrowing Source
  ) -> BlockVerdict {
    var rule = SegmentRule(limits)
    var index = 0
    while index < indirect.segmentCount {
      if let reason = rule.accept(source.segment(at: index)) { return .reject(.error, reason) }
      index += 1
    }
    return judge(rule, of: indirect)
  }

  /// Judges the range of an indirect request all of whose segments `rule` has accepted, each once.
  @inlinable
  public func judge(_ rule: SegmentRule, of indirect: IndirectTransfer) -> BlockVerdict {
    finish(rule, indirect.kind, indirect.sectorNumber, indirect.segmentCount)
  }

  // MARK: Parts

  /// Reads and writes, and what follows a flush or barrier that carries data.
  @inlinable
  func judgeDirect(_ request: BlockRequest, _ slot: SlotCopy, _ kind: TransferKind) -> BlockVerdict {
    if kind.isWrite && limits.readOnly { return .reject(.error, .readOnly) }
    let count = Int(request.segmentCount)
    if count == 0 { return .reject(.error, .noSegments) }
    // Before any segment is looked at: the table in the slot has 11 places (XSA-513).
    if count > maximumDirectSegments { return .reject(.error, .tooManySegments) }
    var rule = SegmentRule(limits)
    var index = 0
    while index < count {
      if let reason = rule.accept(request.segment(at: index, in: slot)) { return .reject(.error, reason) }
      index += 1
    }
    return finish(rule, kind, request.sectorNumber, count)
  }

  /// Flush and barrier: both may come without data, and then change nothing on a read-only disk either.
  @inlinable
  func judgeOrdered(
    _ request: BlockRequest, _ slot: SlotCopy, _ option: BlockOptions, _ kind: TransferKind,
    _ empty: BlockVerdict
  ) -> BlockVerdict {
    guard limits.offered.contains(option) else { return .reject(.notSupported, .notOffered) }
    return request.segmentCount == 0 ? empty : judgeDirect(request, slot, kind)
  }

  @inlinable
  func judgeIndirect(_ request: BlockRequest) -> BlockVerdict {
    guard limits.offered.contains(.indirect) else { return .reject(.notSupported, .notOffered) }
    let kind: TransferKind
    switch request.innerOperation {
    case .read: kind = .read
    case .write: kind = .write
    default: return .reject(.error, .indirectOperation)
    }
    if kind.isWrite && limits.readOnly { return .reject(.error, .readOnly) }
    let count = Int(request.segmentCount)
    if count == 0 { return .reject(.error, .noSegments) }
    if count > limits.maximumIndirectSegments { return .reject(.error, .tooManySegments) }
    return .indirect(
      IndirectTransfer(kind: kind, sectorNumber: request.sectorNumber, segmentCount: count))
  }

  @inlinable
  func judgeDiscard(_ request: BlockRequest) -> BlockVerdict {
    guard limits.offered.contains(.discard) else { return .reject(.notSupported, .notOffered) }
    if limits.readOnly { return .reject(.error, .readOnly) }
    let first = request.sectorNumber
    let count = request.discardSectorCount
    if count == 0 { return .discardNothing }
    if (first | count) & limits.unitMask != 0 { return .reject(.error, .misaligned) }
    guard fits(first, count) else { return .reject(.error, .outsideDisk) }
    // The range lies on the disk, so its bytes fit in 63 bits.
    let offset = first * UInt64(wireSectorByteCount)
    let granularity = UInt64(limits.discardGranularityBytes)
    guard offset % granularity == UInt64(limits.discardAlignmentBytes) % granularity else {
      return .reject(.error, .discardMisaligned)
    }
    // Without discard-secure the flag is ignored (blkif.h, BLKIF_DISCARD_SECURE).
    let isSecure =
      request.discardFlags & BlockRequest.discardSecureFlag != 0 && limits.offered.contains(.secureDiscard)
    return .discard(
      BlockDiscard(
        byteOffset: offset, byteCount: count * UInt64(wireSectorByteCount), isSecure: isSecure))
  }

  /// Sector number and range, the same for direct and indirect transfers.
  @inlinable
  func finish(_ rule: SegmentRule, _ kind: TransferKind, _ first: UInt64, _ count: Int) -> BlockVerdict {
    if first & limits.unitMask != 0 { return .reject(.error, .misaligned) }
    guard fits(first, UInt64(rule.sectorCount)) else { return .reject(.error, .outsideDisk) }
    return .transfer(
      BlockTransfer(
        kind: kind, byteOffset: first * UInt64(wireSectorByteCount),
        byteCount: rule.sectorCount * wireSectorByteCount, segmentCount: count))
  }

  /// True when `count` sectors from `first` lie on the disk, written so that no sum can wrap.
  @inlinable
  func fits(_ first: UInt64, _ count: UInt64) -> Bool {
    first <= limits.sectorCount && count <= limits.sectorCount - first
  }
}

/// Segment descriptors in private memory.
public protocol SegmentSource: ~Copyable, ~Escapable {
  /// Segment `index` as the guest described it.
  func segment(at index: Int) -> BlockSegment
}

/// The rule for one segment, and the sum over all of them: the same for direct and indirect requests.
@frozen
public struct SegmentRule: BitwiseCopyable, Sendable {
  /// 512-byte sectors accepted so far; at most 8 for each of 4096 segments.
  @inlinable public var sectorCount: Int { sum }
  @usableFromInline var sum: Int
  @usableFromInline let unitMask: UInt8

  /// Begins a request under `limits`.
  @inlinable
  public init(_ limits: BlockLimits) {
    sum = 0
    unitMask = UInt8(truncatingIfNeeded: limits.unitMask)
  }

  /// Adds `segment`; returns why it is refused, or nil.
  @inlinable
  public mutating func accept(_ segment: BlockSegment) -> RejectReason? {
    if segment.firstSector > segment.lastSector { return .segmentReversed }
    if segment.lastSector >= 8 { return .segmentOutsidePage }
    if (segment.firstSector | (segment.lastSector + 1)) & unitMask != 0 { return .misaligned }
    sum += segment.sectorCount
    return nil
  }
}
