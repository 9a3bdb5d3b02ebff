/// Which devices there are for our kinds of backend, and which of them is to be read again.
///
/// Pure but for ``scan(_:in:)``. What is pending is bounded by the number of devices, however many events
/// guests cause (XSA-349): each device and each kind waits at most once, in the order of the first event.
public struct BackendDirectory: Sendable {
  /// What is to be done next.
  public enum Work: Hashable, Sendable {
    /// List the kind's devices: ``scan(_:in:)``.
    case scan(kind: String)
    /// Read the device's nodes and tell its handshake.
    case read(DeviceAddress)
  }

  /// What a listing has changed.
  public struct Changes: Hashable, Sendable {
    /// Devices that are new, in order.
    public var appeared: [DeviceAddress] = []
    /// Devices whose directory is gone, in order.
    public var vanished: [DeviceAddress] = []
    /// Paths whose names are no numbers, each reported once.
    public var ignored: [String] = []

    /// No change.
    public init() {}
  }

  /// Names without sense that are remembered, so that they are reported once. Further ones are not reported.
  private static let maximumIgnored = 256

  /// Our own domain.
  public let backend: DomainID
  /// The kinds that are served.
  public let kinds: [String]
  /// The devices that the last listings have shown.
  public private(set) var devices: Set<DeviceAddress> = []

  private var queue: [Work] = []
  private var queued: Set<Work> = []
  private var ignored: Set<String> = []

  /// A directory in which nothing was listed yet. `kinds` are single path components.
  public init(backend: DomainID, kinds: [String]) {
    precondition(kinds.allSatisfy { !$0.isEmpty && !$0.contains("/") } && Set(kinds).count == kinds.count)
    self.backend = backend
    self.kinds = kinds
  }

  // MARK: Watches

  /// The directory to watch for a kind, with ``token(of:)``. One watch serves all its devices: xenstored
  /// allows a driver domain 128 of them.
  public func path(of kind: String) -> String { "/local/domain/\(backend)/backend/\(kind)" }

  /// The token for the watch on ``path(of:)``.
  public func token(of kind: String) -> String { "kind/\(kind)" }

  /// The token for the watch on a device's frontend state.
  public func token(ofFrontendOf address: DeviceAddress) -> String { "frontend/\(address)" }

  /// Takes in an event; events that mean nothing any more are dropped.
  public mutating func note(_ event: WatchEvent) {
    let parts = event.token.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    switch (parts.first, parts.count) {
    case ("kind", 2):
      guard kinds.contains(parts[1]) else { return }
      noteChange(below: parts[1], path: event.path)
    case ("frontend", 4):
      guard let address = DeviceAddress(kind: parts[1], domain: parts[2], device: parts[3]) else { return }
      note(address)
    default:
      return
    }
  }

  /// Has a device read again.
  public mutating func note(_ address: DeviceAddress) {
    if devices.contains(address) { add(.read(address)) }
  }

  /// What to do next; nil when nothing is pending.
  public mutating func next() -> Work? {
    guard !queue.isEmpty else { return nil }
    let work = queue.removeFirst()
    queued.remove(work)
    return work
  }

  private mutating func noteChange(below kind: String, path: String) {
    let base = self.path(of: kind)
    guard path == base || path.hasPrefix(base + "/") else { return }
    let names = path.dropFirst(base.count).split(separator: "/").map(String.init)
    guard names.count >= 2, let address = DeviceAddress(kind: kind, domain: names[0], device: names[1]),
      devices.contains(address)
    else { return add(.scan(kind: kind)) }
    // The directory itself changes when it is made or removed.
    if names.count == 2 { add(.scan(kind: kind)) }
    add(.read(address))
  }

  private mutating func add(_ work: Work) {
    if queued.insert(work).inserted { queue.append(work) }
  }

  // MARK: Listings

  /// Lists a kind's devices in the store.
  public mutating func scan(_ kind: String, in store: any StoreAccess) throws(StoreError) -> Changes {
    var listing: [(domain: String, devices: [String])] = []
    for domain in try store.list(path(of: kind)) ?? [] {
      // Names that are no numbers are not looked into.
      let isDomain = DeviceAddress.domain(named: domain) != nil
      let devices = isDomain ? try store.list("\(path(of: kind))/\(domain)") : nil
      listing.append((domain, devices ?? []))
    }
    return update(kind, with: listing)
  }

  /// Takes a kind's listing in: the names of the domains' directories, and in each those of the devices'.
  public mutating func update(
    _ kind: String, with listing: [(domain: String, devices: [String])]
  ) -> Changes {
    var changes = Changes()
    var seen: Set<DeviceAddress> = []
    for (domain, names) in listing.sorted(by: { $0.domain < $1.domain }) {
      guard DeviceAddress.domain(named: domain) != nil else {
        ignore("\(kind)/\(domain)", &changes)
        continue
      }
      for name in names.sorted() {
        if let address = DeviceAddress(kind: kind, domain: domain, device: name) {
          seen.insert(address)
        } else {
          ignore("\(kind)/\(domain)/\(name)", &changes)
        }
      }
    }
    let known = devices.filter { $0.kind == kind }
    changes.appeared = seen.subtracting(known).sorted()
    changes.vanished = known.subtracting(seen).sorted()
    devices.formUnion(seen)
    devices.subtract(changes.vanished)
    for address in changes.vanished where queued.remove(.read(address)) != nil {
      queue.removeAll { $0 == .read(address) }
    }
    return changes
  }

  private mutating func ignore(_ path: String, _ changes: inout Changes) {
    guard ignored.count < Self.maximumIgnored, ignored.insert(path).inserted else { return }
    changes.ignored.append(path)
  }
}
