public import Blkback
public import RingKit

/// What a block backend offers before the rings exist (blkif.h, "Backend XenBus Nodes"). Absent nodes have
/// the defaults of the header.
public struct BackendFeatures: Equatable, Sendable {
  /// `feature-persistent`: granted pages may stay mapped.
  public var persistentGrants: Bool
  /// `feature-flush-cache`: flush works.
  public var flush: Bool
  /// `feature-barrier`: write barriers work.
  public var barrier: Bool
  /// `feature-discard`: discards work.
  public var discard: Bool
  /// `discard-granularity` in bytes; 0 when the backend does not say, which means the logical sector. Without
  /// ``discard`` it is 0, like the two that follow.
  public var discardGranularityByteCount: Int
  /// `discard-alignment`: the first discard extent's place in bytes.
  public var discardAlignmentByteCount: Int
  /// `discard-secure`: a discard can make all copies unrecoverable.
  public var secureDiscard: Bool
  /// `feature-max-indirect-segments`; 0 without indirect requests.
  public var maximumIndirectSegments: UInt32
  /// Largest ring as a power of two: the larger of `max-ring-page-order` and `max-ring-pages`.
  public var maximumRingPageOrder: Int
  /// `multi-queue-max-queues`.
  public var maximumQueues: Int

  /// What makes completed writes durable, as Linux chooses: a flush, else a write barrier, else nothing.
  public var flushOperation: BlockOperation? { flush ? .flush : barrier ? .writeBarrier : nil }

  /// Reads them from the backend's directory.
  public static func read(from store: any StoreAccess, backendPath: String) throws(StoreError)
    -> BackendFeatures
  {
    let discard = try store.flag("\(backendPath)/feature-discard", default: false)
    let pages: UInt32 = try store.decimal("\(backendPath)/max-ring-pages", in: 1...(1 << 16), default: 1)
    return BackendFeatures(
      persistentGrants: try store.flag("\(backendPath)/feature-persistent", default: false),
      flush: try store.flag("\(backendPath)/feature-flush-cache", default: false),
      barrier: try store.flag("\(backendPath)/feature-barrier", default: false),
      discard: discard,
      discardGranularityByteCount: !discard
        ? 0 : try store.decimal("\(backendPath)/discard-granularity", in: 0...(1 << 40), default: 0),
      discardAlignmentByteCount: !discard
        ? 0 : try store.decimal("\(backendPath)/discard-alignment", in: 0...(1 << 40), default: 0),
      secureDiscard: discard ? try store.flag("\(backendPath)/discard-secure", default: false) : false,
      maximumIndirectSegments: try store.decimal(
        "\(backendPath)/feature-max-indirect-segments", in: 0...UInt32.max, default: 0),
      maximumRingPageOrder: max(
        UInt32.bitWidth - 1 - pages.leadingZeroBitCount,
        try store.decimal("\(backendPath)/max-ring-page-order", in: 0...16, default: 0)),
      maximumQueues: try store.decimal("\(backendPath)/multi-queue-max-queues", in: 1...65536, default: 1))
  }
}

/// The disk as a connected backend describes it.
public struct DiskProperties: Equatable, Sendable {
  /// Size in units of 512 bytes, whatever the sector size (blkif.h of Xen 4.20).
  public var sectorCount: UInt64
  /// `sector-size`: offsets and lengths of transfers are multiples of it. Bytes, a power of two, at least
  /// 512.
  public var sectorByteCount: Int
  /// `physical-sector-size` in bytes.
  public var physicalSectorByteCount: Int
  /// The `info` bits (VDISK_CDROM, VDISK_REMOVABLE, VDISK_READONLY).
  public var info: UInt32

  /// VDISK_READONLY: writes fail.
  public var isReadOnly: Bool { info & 4 != 0 }

  /// Describes a disk.
  public init(sectorCount: UInt64, sectorByteCount: Int, physicalSectorByteCount: Int, info: UInt32) {
    self.sectorCount = sectorCount
    self.sectorByteCount = sectorByteCount
    self.physicalSectorByteCount = physicalSectorByteCount
    self.info = info
  }

  /// Reads them from the backend's directory.
  public static func read(from store: any StoreAccess, backendPath: String) throws(StoreError)
    -> DiskProperties
  {
    let path = "\(backendPath)/sector-size"
    let sector: Int = try store.decimal(path, in: 512...(1 << 20), default: 512)
    guard sector.nonzeroBitCount == 1 else { throw .bad(path, String(sector), expected: "a power of two") }
    return DiskProperties(
      sectorCount: try store.decimal("\(backendPath)/sectors", in: 0...(UInt64.max / 512)),
      sectorByteCount: sector,
      physicalSectorByteCount: try store.decimal(
        "\(backendPath)/physical-sector-size", in: 512...(1 << 30), default: sector),
      info: try store.decimal("\(backendPath)/info", in: 0...UInt32.max, default: 0))
  }
}
