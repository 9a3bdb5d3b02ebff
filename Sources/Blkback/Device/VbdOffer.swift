/// What a disk offers its frontend.
public struct VbdOffer: Equatable, Sendable {
  /// Largest accepted ring: 2^order pages (blkif.h, max-ring-page-order).
  public var maximumRingPageOrder = 4
  /// Most rings (blkif.h, multi-queue-max-queues).
  public var maximumQueues = 1
  /// Whether granted pages may stay mapped (blkif.h, feature-persistent).
  public var persistentGrants = true

  /// The usual offer.
  public init() {}
}

/// What a disk is, as its frontend sees it.
public struct VbdProperties: Equatable, Sendable {
  /// Size in units of 512 bytes, whatever the sector size is (blkif.h as settled by xen.git 221f2748e8).
  public var sectorCount: UInt64
  /// The smallest piece that the frontend may address, in bytes.
  public var sectorByteCount = 512
  /// The medium's own block, in bytes: a hint for the guest's layout.
  public var physicalSectorByteCount: Int
  /// VDISK_READONLY.
  public var isReadOnly: Bool
  /// VDISK_CDROM.
  public var isCDROM: Bool
  /// VDISK_REMOVABLE.
  public var isRemovable: Bool

  /// Describes a disk with 512-byte sectors.
  public init(
    sectorCount: UInt64, physicalSectorByteCount: Int, isReadOnly: Bool, isCDROM: Bool, isRemovable: Bool
  ) {
    self.sectorCount = sectorCount
    self.physicalSectorByteCount = physicalSectorByteCount
    self.isReadOnly = isReadOnly
    self.isCDROM = isCDROM
    self.isRemovable = isRemovable
  }

  /// The `info` bits.
  public var info: UInt32 { (isCDROM ? 1 : 0) | (isRemovable ? 2 : 0) | (isReadOnly ? 4 : 0) }
}

extension VbdOffer {
  /// The nodes below the backend's directory that announce this offer and the disk. All are written before
  /// InitWait and again before Connected: Windows reads them at the first, Linux at the second, and an
  /// earlier connection may have left other values.
  public func nodes(for properties: VbdProperties) -> [(name: String, value: String)] {
    [
      ("feature-flush-cache", "1"),
      ("feature-barrier", "0"),
      ("feature-discard", "0"),
      ("feature-persistent", persistentGrants ? "1" : "0"),
      ("max-ring-page-order", String(maximumRingPageOrder)),
      ("max-ring-pages", String(1 << maximumRingPageOrder)),
      ("multi-queue-max-queues", String(maximumQueues)),
      ("sectors", String(properties.sectorCount)),
      ("sector-size", String(properties.sectorByteCount)),
      ("physical-sector-size", String(properties.physicalSectorByteCount)),
      ("info", String(properties.info)),
    ]
  }
}
