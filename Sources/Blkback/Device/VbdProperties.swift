import RingKit

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
  /// Whether the medium takes ranges back, and the toolstack allows it (`discard-enable`).
  public var canDiscard = false
  /// Whether it can make them unrecoverable.
  public var canDiscardSecurely = false
  /// Queues that may use the medium at once.
  public var maximumQueueCount = Int.max

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

  /// What an opened image is under a description. Throws when it is no whole number of the sectors asked for.
  init(of image: any BlockStore, _ configuration: VbdConfiguration) throws(VbdError) {
    let sector = configuration.logicalSectorByteCount
    guard image.byteCount % UInt64(sector) == 0 else {
      throw VbdError(
        "the image \(configuration.image) has \(image.byteCount) bytes, no whole number of sectors of "
          + "\(sector) bytes; resize it, or set logical-sector-size to 512")
    }
    self.init(
      sectorCount: image.byteCount / 512, physicalSectorByteCount: image.physicalBlockByteCount,
      isReadOnly: !configuration.isWritable, isCDROM: configuration.isCDROM,
      isRemovable: configuration.isRemovable)
    sectorByteCount = sector
    fitPhysicalSector(image.physicalBlockByteCount)
    canDiscard = image.discard != nil && configuration.allowsDiscard && !isReadOnly
    canDiscardSecurely = canDiscard && image.discard?.isSecurePossible == true
    maximumQueueCount = max(1, image.maximumQueueCount)
  }

  /// Lowers the hint until the disk is a whole number of such blocks, as `sectors` has to be (blkif.h).
  mutating func fitPhysicalSector(_ byteCount: Int) {
    var physical = max(byteCount, sectorByteCount)
    while physical > sectorByteCount, sectorCount % UInt64(physical / 512) != 0 { physical /= 2 }
    physicalSectorByteCount = max(physical, sectorByteCount)
  }

  /// The `info` bits.
  public var info: UInt32 { (isCDROM ? 1 : 0) | (isRemovable ? 2 : 0) | (isReadOnly ? 4 : 0) }

  /// What another daemon has published of a disk that was paused since, so that its image need not be looked
  /// at; nil when nothing was.
  static func published(
    in store: any StoreAccess, directory: String, _ configuration: VbdConfiguration
  ) throws(StoreError) -> VbdProperties? {
    guard let sectors: UInt64 = try store.decimalIfPresent("\(directory)/sectors", in: 0...(.max / 512)),
      sectors % UInt64(configuration.logicalSectorByteCount / 512) == 0
    else { return nil }
    var properties = VbdProperties(
      sectorCount: sectors, physicalSectorByteCount: 512, isReadOnly: !configuration.isWritable,
      isCDROM: configuration.isCDROM, isRemovable: configuration.isRemovable)
    properties.sectorByteCount = configuration.logicalSectorByteCount
    properties.fitPhysicalSector(
      try store.decimal("\(directory)/physical-sector-size", in: 512...(1 << 20), default: 512))
    properties.canDiscard = try store.flag("\(directory)/feature-discard", default: false)
    properties.canDiscardSecurely = try store.flag("\(directory)/discard-secure", default: false)
    properties.maximumQueueCount = try store.decimal(
      "\(directory)/multi-queue-max-queues", in: 1...8, default: 1)
    return properties
  }
}
