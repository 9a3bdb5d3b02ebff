/// The nodes of one backend device, and the store's part in what its handshake asks for.
public struct BackendNodes: Hashable, Sendable {
  /// The device.
  public let address: DeviceAddress
  /// Our own domain.
  public let backend: DomainID
  /// The device's directory: /local/domain/<backend>/backend/<kind>/<domid>/<devid>.
  public let directory: String
  /// The frontend's directory, checked to lie in the frontend's domain. The guest writes everything below it.
  public let frontendDirectory: String

  /// Reads where the frontend is, and checks that it is where it must be: node `frontend-id` says the domain
  /// that the directory is named for, node `frontend` lies in that domain's part of the store, and that
  /// domain cannot write our directory (XSA-57's class).
  public init(
    _ address: DeviceAddress, backend: DomainID, in store: any StoreAccess
  ) throws(StoreError) {
    self.address = address
    self.backend = backend
    directory = "/local/domain/\(backend)/backend/\(address)"
    let identifier = "\(directory)/frontend-id"
    let domain = try store.decimal(identifier, in: 0...DomainID.highestOrdinary.rawValue)
    guard domain == address.domain.rawValue else {
      throw .bad(identifier, String(domain), expected: "\(address.domain), as the directory's name says")
    }
    let home = "/local/domain/\(domain)/"
    let path = try store.text("\(directory)/frontend")
    guard StoreValue.isAbsolutePath(path), path.hasPrefix(home) else {
      throw .bad("\(directory)/frontend", path, expected: "a path below \(home)")
    }
    frontendDirectory = path
    try requireOwnership(in: store)
  }

  private func requireOwnership(in store: any StoreAccess) throws(StoreError) {
    // A domain that is its own backend is not defended against itself.
    guard address.domain != backend else { return }
    guard let permissions = try store.permissions(of: directory), let owner = permissions.first else {
      throw .missing(path: directory)
    }
    let guest = permissions.dropFirst().first { $0.domain == address.domain } ?? owner
    guard owner.domain != address.domain, !guest.canWrite else {
      throw .untrustworthy(path: directory, reason: "domain \(address.domain), the frontend, can write it")
    }
  }

  /// Our own state's node.
  public var ownState: String { "\(directory)/state" }
  /// The frontend's state's node, to be watched.
  public var frontendState: String { "\(frontendDirectory)/state" }
  /// Where errors are told, as Linux does it: <backend's
  /// directory>/error/backend/<kind>/<domid>/<devid>/error.
  public var errorNode: String { Self.errorNode(of: address, backend: backend) }

  /// ``errorNode`` of a device whose other nodes need not be in order.
  public static func errorNode(of address: DeviceAddress, backend: DomainID) -> String {
    "/local/domain/\(backend)/error/backend/\(address)/error"
  }

  /// True when the hotplug script has said `connected`.
  public func isHotplugConnected(in store: any StoreAccess) throws(StoreError) -> Bool {
    try store.read("\(directory)/hotplug-status") == "connected"
  }

  /// Reads the nodes. `isHotplugReady` is the device's own judgement, which may need more than a node.
  ///
  /// A toolstack writes `online=0` together with Closing, and may take the frontend away with the same
  /// transaction. So our own state is read first and last: as long as it changes meanwhile, all is read again.
  public func observe(
    in store: any StoreAccess, isHotplugReady: Bool
  ) throws(StoreError) -> BackendObservation {
    var own = try ownState(in: store)
    while true {
      let isOnline = try lenient(false) { () throws(StoreError) in
        try store.flag("\(directory)/online", default: false)
      }
      let frontend = try lenient(.unknown) { () throws(StoreError) in try frontendState(in: store) }
      let now = try ownState(in: store)
      if now == own {
        return BackendObservation(
          own: own, frontend: frontend, isOnline: isOnline, isHotplugReady: isHotplugReady)
      }
      own = now
    }
  }

  private func frontendState(in store: any StoreAccess) throws(StoreError) -> XenbusState? {
    do throws(StoreError) {
      return try store.state(frontendState)
    } catch {
      // A driver domain may not look above the frontend's directory, so that this is how it hears that it is
      // gone (xenstored_core.c, errno_from_parents).
      guard error.isForbidden else { throw error }
      return nil
    }
  }

  private func ownState(in store: any StoreAccess) throws(StoreError) -> XenbusState? {
    try lenient(.unknown) { () throws(StoreError) in try store.state(ownState) }
  }

  /// What somebody else wrote badly, or forbade us to read, is a value like any other; a store that fails is
  /// not.
  private func lenient<Value>(
    _ substitute: Value, _ read: () throws(StoreError) -> Value
  ) throws(StoreError) -> Value {
    do {
      return try read()
    } catch {
      guard error.isAboutTheNode else { throw error }
      return substitute
    }
  }

  /// ``BackendAction/switchState(from:to:)``: false when our node holds something else than `from`, in which
  /// case nothing was written and the nodes are to be observed again. A directory that is gone is not made
  /// again.
  public func switchState(
    from: XenbusState, to: XenbusState, in store: any StoreSession
  ) throws(StoreError) -> Bool {
    try change(from: from, to: to, in: store) { _ throws(StoreError) in }
  }

  /// ``BackendAction/publishFeatures(from:thenState:)``: `write` writes the features into the directory it is
  /// given; otherwise as ``switchState(from:to:in:)``.
  public func publishFeatures(
    from: XenbusState, thenState state: XenbusState, in store: any StoreSession,
    _ write: (any StoreAccess, String) throws(StoreError) -> Void
  ) throws(StoreError) -> Bool {
    try change(from: from, to: state, in: store) { transaction throws(StoreError) in
      try write(transaction, directory)
    }
  }

  private func change(
    from: XenbusState, to: XenbusState, in store: any StoreSession,
    _ write: (any StoreAccess) throws(StoreError) -> Void
  ) throws(StoreError) -> Bool {
    try store.transaction { transaction throws(StoreError) in
      guard try ownState(in: transaction) == from else { return false }
      try write(transaction)
      try transaction.write(ownState, to.text)
      return true
    }
  }

  /// ``BackendAction/reportError(_:)``, the store's half: at most 256 characters, whatever a guest had a part
  /// in.
  public func reportError(_ message: String, in store: any StoreAccess) throws(StoreError) {
    try store.write(errorNode, StoreError.escaped(message, limit: 256))
  }

  /// Takes the error back, once a connection is up or the device forgotten.
  public func clearError(in store: any StoreSession) throws(StoreError) {
    try Self.clearError(of: address, backend: backend, in: store)
  }

  /// ``clearError(in:)`` of a device whose nodes are not known. The directories above, which only other
  /// errors would need, go too.
  public static func clearError(
    of address: DeviceAddress, backend: DomainID, in store: any StoreSession
  ) throws(StoreError) {
    let path = "\(errors(of: address.kind, backend))/\(address.domain)/\(address.device)"
    guard try store.exists(path) else { return }
    // A driver domain's `error` is its toolstack's, and could not be made again.
    try store.transaction { tree throws(StoreError) in
      try tree.remove(path, pruningBelow: "/local/domain/\(backend)/error")
    }
  }

  /// Takes back what earlier daemons have told of devices that are gone.
  public static func clearStaleErrors(
    of kind: String, backend: DomainID, in store: any StoreSession
  ) throws(StoreError) {
    for domain in try store.list(errors(of: kind, backend)) ?? [] {
      for device in try store.list("\(errors(of: kind, backend))/\(domain)") ?? [] {
        guard let address = DeviceAddress(kind: kind, domain: domain, device: device),
          try !store.exists("/local/domain/\(backend)/backend/\(address)")
        else { continue }
        try clearError(of: address, backend: backend, in: store)
      }
    }
  }

  private static func errors(of kind: String, _ backend: DomainID) -> String {
    "/local/domain/\(backend)/error/backend/\(kind)"
  }
}
