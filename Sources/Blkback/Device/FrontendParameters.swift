public import RingKit

/// What a frontend asks for when it connects: read once, checked, and never looked at again while connected
/// (blkif.h, "Frontend XenBus Nodes").
public struct FrontendParameters: Equatable, Sendable {
  /// One ring and its event channel.
  public struct Queue: Equatable, Sendable {
    /// The ring's pages, in order; a power of two of them.
    public var ringReferences: [GrantReference]
    /// The frontend's unbound port.
    public var port: Port
  }

  /// The slots' layout.
  public var abi: BlockABI
  /// The queues; at least one.
  public var queues: [Queue]
  /// True when both sides agreed that granted pages stay mapped.
  public var usesPersistentGrants: Bool

  /// Reads the frontend's keys, all of which the guest can set to anything.
  static func read(
    from store: any StoreAccess, frontendPath: String, offer: VbdOffer, for properties: VbdProperties
  ) throws(VbdError) -> FrontendParameters {
    do {
      // Absent means x86_32 on x86, not the header's "native": that is what every old 32-bit guest relies on.
      var abi = BlockABI.x86_32
      if let name = try store.read("\(frontendPath)/protocol") {
        guard let named = BlockABI(protocolName: name) else {
          throw VbdError(
            "\(frontendPath)/protocol is \"\(name.prefix(64))\"; known are x86_64-abi, x86_32-abi and arm-abi"
          )
        }
        abi = named
      }
      // Such a frontend counts everything in sectors, which was the rule from 2012 to Xen 4.20 and nobody's
      // rule since; nobody can tell which of the two it means, so it gets no disk rather than a mangled one.
      if properties.sectorByteCount != 512, try store.flag(largeSectors(frontendPath), default: false) {
        throw VbdError(
          "\(largeSectors(frontendPath)) is 1 and the disk's sectors have \(properties.sectorByteCount) bytes: "
            + "this frontend would count in another unit than ours (deprecated in Xen 4.20); remove the node "
            + "logical-sector-size, so that the disk has 512-byte sectors")
      }
      let order = try ringPageOrder(store, frontendPath: frontendPath, offer: offer)
      let count = try store.decimal(
        "\(frontendPath)/multi-queue-num-queues", in: 1...offer.queueCount(for: properties), default: 1)
      var queues: [Queue] = []
      for index in 0..<count {
        // With one queue the keys stand at the top level, whatever else is there (block protocol,
        // multi-queue).
        let path = count == 1 ? frontendPath : "\(frontendPath)/queue-\(index)"
        queues.append(
          Queue(
            ringReferences: try ringReferences(store, path: path, order: order),
            port: Port(rawValue: try store.decimal("\(path)/event-channel", in: 1...UInt32.max))))
      }
      let persistent = try store.flag("\(frontendPath)/feature-persistent", default: false)
      return FrontendParameters(
        abi: abi, queues: queues, usesPersistentGrants: persistent && offer.persistentGrants)
    } catch let error as VbdError {
      throw error
    } catch {
      throw VbdError("\(error)")
    }
  }

  private static func largeSectors(_ frontendPath: String) -> String {
    "\(frontendPath)/feature-large-sector-size"
  }

  /// The ring's order; nil when the frontend wrote neither key, which is the single-page way.
  private static func ringPageOrder(
    _ store: any StoreAccess, frontendPath: String, offer: VbdOffer
  ) throws(StoreError) -> Int? {
    let path = "\(frontendPath)/ring-page-order"
    // Bounded before it is ever used as a shift.
    if let order = try store.decimalIfPresent(path, in: 0...offer.maximumRingPageOrder) { return order }
    let pagesPath = "\(frontendPath)/num-ring-pages"
    let largest = 1 << offer.maximumRingPageOrder
    guard let pages = try store.decimalIfPresent(pagesPath, in: 1...largest) else { return nil }
    guard pages.nonzeroBitCount == 1 else {
      throw StoreError.badValue(path: pagesPath, value: String(pages), expected: "a power of two")
    }
    return pages == 1 ? nil : pages.trailingZeroBitCount
  }

  /// An earlier frontend (a boot loader) may have left keys of the other style, so the order alone decides
  /// which are read; only a written order of 0 may mean either.
  private static func ringReferences(
    _ store: any StoreAccess, path: String, order: Int?
  ) throws(StoreError) -> [GrantReference] {
    let range = UInt32.min...UInt32.max
    guard let order else {
      return [GrantReference(rawValue: try store.decimal("\(path)/ring-ref", in: range))]
    }
    if order == 0, try store.read("\(path)/ring-ref0") == nil {
      return [GrantReference(rawValue: try store.decimal("\(path)/ring-ref", in: range))]
    }
    var references: [GrantReference] = []
    for index in 0..<1 << order {
      references.append(
        GrantReference(rawValue: try store.decimal("\(path)/ring-ref\(index)", in: range)))
    }
    return references
  }
}

extension FrontendParameters: CustomStringConvertible {
  /// The negotiated shape in words, for the log.
  public var description: String {
    let pages = queues.first?.ringReferences.count ?? 0
    return "\(abi.protocolName), queues: \(queues.count), ring pages: \(pages), "
      + "grants: \(usesPersistentGrants ? "persistent" : "copied")"
  }
}
