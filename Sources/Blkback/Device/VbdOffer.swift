import RingKit

/// What a disk offers its frontend, as far as its medium can.
public struct VbdOffer: Equatable, Sendable {
  /// Most rings that any disk offers; more than Linux's blkfront ever asks for of its own accord.
  public static let queueLimit = 8

  /// Largest accepted ring: 2^order pages, 0...4 (blkif.h, max-ring-page-order).
  public var maximumRingPageOrder = 4
  /// Most rings, 1...``queueLimit`` (blkif.h, multi-queue-max-queues); nil for one a data thread.
  public var maximumQueues: Int?
  /// Whether granted pages may stay mapped (blkif.h, feature-persistent).
  public var persistentGrants = true
  /// Milliseconds after which a granted page that no request used is let go: a backend that keeps it hinders
  /// ballooning and migration.
  public var persistentIdleMilliseconds: UInt32 = 60_000
  /// Whether the guest may ask for what it wrote to be made durable (blkif.h, feature-flush-cache).
  public var flush = true
  /// Whether write barriers are offered (blkif.h, feature-barrier).
  public var barrier = true
  /// Whether ranges may be given back (blkif.h, feature-discard), where the medium can.
  public var discard = true
  /// Segments of an indirect request at most, 1...256; 0 to offer none (blkif.h,
  /// feature-max-indirect-segments).
  public var indirectSegments = 256
  /// Guest pages that one queue keeps mapped at most, where that was negotiated.
  public var persistentPageLimit = 4096

  /// The usual offer.
  public init() {}

  /// The same offer with its number of queues settled for a daemon with so many data threads.
  func settled(threadCount: Int) -> VbdOffer {
    var offer = self
    offer.maximumQueues = min(max(1, maximumQueues ?? threadCount), Self.queueLimit)
    return offer
  }

  /// Rings that a disk offers.
  func queueCount(for properties: VbdProperties) -> Int {
    min(maximumQueues ?? 1, properties.maximumQueueCount)
  }

  /// The optional operations that a disk offers: exactly those that ``nodes(for:)`` announces.
  func options(for properties: VbdProperties) -> BlockOptions {
    var options: BlockOptions = []
    if flush { options.insert(.flush) }
    if barrier { options.insert(.barrier) }
    if discard && properties.canDiscard {
      options.insert(.discard)
      if properties.canDiscardSecurely { options.insert(.secureDiscard) }
    }
    if indirectSegments > 0 { options.insert(.indirect) }
    return options
  }

  /// The rules that a disk's requests are judged by.
  func limits(for properties: VbdProperties) throws(VbdError) -> BlockLimits {
    do throws(BlockLimitsError) {
      return try BlockLimits(
        sectorCount: properties.sectorCount, sectorByteCount: properties.sectorByteCount,
        readOnly: properties.isReadOnly, offered: options(for: properties),
        maximumIndirectSegments: indirectSegments)
    } catch {
      throw VbdError(error)
    }
  }

  /// The nodes below the backend's directory that announce this offer and the disk (blkif.h, "Backend XenBus
  /// Nodes"). All are written before InitWait and again before Connected: Windows reads them at the first,
  /// Linux at the second, and an earlier connection may have left other values.
  func nodes(for properties: VbdProperties) -> [DeviceNode] {
    let options = options(for: properties)
    let discards = options.contains(.discard)
    func flag(_ option: BlockOptions) -> String { options.contains(option) ? "1" : "0" }
    return [
      DeviceNode("feature-flush-cache", flag(.flush)),
      DeviceNode("feature-barrier", flag(.barrier)),
      DeviceNode("feature-discard", flag(.discard)),
      // Both or neither (blkif.h, note 4). A discard has to begin at a multiple of the granularity since
      // xen.git e9a0101dde, so it is the sector: stores round inwards to what their medium can.
      DeviceNode("discard-granularity", discards ? String(properties.sectorByteCount) : nil),
      DeviceNode("discard-alignment", discards ? "0" : nil),
      DeviceNode("discard-secure", discards ? flag(.secureDiscard) : nil),
      // Must be absent where indirect requests are not supported (blkif.h, BLKIF_OP_INDIRECT).
      DeviceNode("feature-max-indirect-segments", indirectSegments > 0 ? String(indirectSegments) : nil),
      DeviceNode("feature-persistent", persistentGrants ? "1" : "0"),
      DeviceNode("max-ring-page-order", String(maximumRingPageOrder)),
      DeviceNode("max-ring-pages", String(1 << maximumRingPageOrder)),
      DeviceNode("multi-queue-max-queues", String(queueCount(for: properties))),
      DeviceNode("sectors", String(properties.sectorCount)),
      DeviceNode("sector-size", String(properties.sectorByteCount)),
      DeviceNode("physical-sector-size", String(properties.physicalSectorByteCount)),
      DeviceNode("info", String(properties.info)),
    ]
  }

  /// What can be announced of a disk whose medium could not be opened: as little as any medium could do. The
  /// rest follows before Connected.
  var nodesWithoutMedium: [DeviceNode] {
    var least = VbdProperties(
      sectorCount: 0, physicalSectorByteCount: 512, isReadOnly: true, isCDROM: false, isRemovable: false)
    least.maximumQueueCount = 1
    let unknown: Set = ["sectors", "sector-size", "physical-sector-size", "info"]
    return nodes(for: least).filter { !unknown.contains($0.name) }
  }
}
