public import RingKit

/// Why a frontend's dealings with its backend through xenstore failed.
public enum FrontendDirectoryError: Error, CustomStringConvertible {
  /// A node is missing, unreadable, or holds what it must not.
  case store(StoreError)
  /// A system call failed.
  case system(SystemError)
  /// A node did not get a wanted value in time; `seen` is what it last was, `reason` the backend's error
  /// node.
  case timedOut(path: String, wanted: String, seen: String, milliseconds: Int, reason: String?)
  /// The backend closed the device, or its directory went away (`state` nil).
  case backendClosed(path: String, state: XenbusState?, reason: String?)

  /// What happened, where, and what to look at.
  public var description: String {
    switch self {
    case .store(let error): error.description
    case .system(let error): error.description
    case .timedOut(let path, let wanted, let seen, let milliseconds, let reason):
      "waited \(milliseconds) ms for \(path) to become \(wanted), it is \(seen)" + Self.because(reason)
        + "; is the backend running?"
    case .backendClosed(let path, nil, let reason):
      "the backend's \(path) is gone" + Self.because(reason)
    case .backendClosed(let path, .some(let state), let reason):
      "the backend went to \(state) at \(path)" + Self.because(reason)
    }
  }

  private static func because(_ reason: String?) -> String {
    reason.map { " (the backend says: \($0))" } ?? ""
  }
}

/// A frontend's directory in xenstore and the backend's state that it looks at (xenbus.h).
public final class FrontendDirectory {
  /// "vif", "vbd".
  public let kind: String
  /// The frontend's directory.
  public let path: String
  /// The backend's directory, as the toolstack wrote it.
  public let backendPath: String
  /// The domain that pages and ports are for, read from `backend-id`.
  public let backendDomain: DomainID
  /// The connection, for tests that write nodes themselves.
  public let store: StoreClient

  private var watchesBackend = false

  /// Reads where the backend is; nothing is written yet.
  public init(
    store: StoreClient, kind: String, domain: DomainID, device: UInt32
  ) throws(FrontendDirectoryError) {
    self.store = store
    self.kind = kind
    path = "/local/domain/\(domain)/device/\(kind)/\(device)"
    do throws(StoreError) {
      backendPath = try store.text("\(path)/backend")
      backendDomain = DomainID(
        rawValue: try store.decimal("\(path)/backend-id", in: 0...DomainID.highestOrdinary.rawValue))
    } catch {
      throw .store(error)
    }
  }

  /// Does something with the store.
  func use<Result>(
    _ body: (StoreClient) throws(StoreError) -> Result
  ) throws(FrontendDirectoryError) -> Result {
    do throws(StoreError) {
      return try body(store)
    } catch {
      throw .store(error)
    }
  }

  // MARK: Nodes

  /// Writes the nodes of a connection in one transaction, as Linux does. Every other node that is a frontend's
  /// (`belongsToFrontend`, of a name in the directory) goes first, whoever wrote it: a kernel before a kexec or
  /// a boot loader leaves keys of queues and offloads that this connection does not have.
  func publish(
    _ nodes: [(name: String, value: String)], replacing belongsToFrontend: (String) -> Bool
  ) throws(FrontendDirectoryError) {
    try use { store throws(StoreError) in
      try store.transaction { (store: any StoreAccess) throws(StoreError) in
        for name in try store.list(path) ?? [] where belongsToFrontend(name) {
          try store.remove("\(path)/\(name)")
        }
        for (name, value) in nodes { try store.write("\(path)/\(name)", value) }
      }
    }
  }

  /// The nodes with other values for some (nil: left out), and more: for tests of what a backend makes of them.
  static func overriding(
    _ nodes: [(name: String, value: String)], with keys: [String: String?]
  ) -> [(name: String, value: String)] {
    var result: [(name: String, value: String)] = []
    for node in nodes {
      switch keys[node.name] {
      case .none: result.append(node)
      case .some(.none): break
      case .some(.some(let value)): result.append((node.name, value))
      }
    }
    let written = Set(nodes.map(\.name))
    for (name, value) in keys.sorted(by: { $0.key < $1.key }) where !written.contains(name) {
      if let value { result.append((name, value)) }
    }
    return result
  }

  /// Writes one node of the frontend's directory.
  func write(_ name: String, _ value: String) throws(FrontendDirectoryError) {
    try use { store throws(StoreError) in try store.write("\(path)/\(name)", value) }
  }

  // MARK: States

  /// The frontend's state node.
  public func state() throws(FrontendDirectoryError) -> XenbusState? {
    try use { store throws(StoreError) in try store.state("\(path)/state") }
  }

  /// Writes the frontend's state node, to any state at any time.
  public func setState(_ state: XenbusState) throws(FrontendDirectoryError) {
    try write("state", state.text)
  }

  /// The backend's state; nil when its directory is gone.
  public func backendState() throws(FrontendDirectoryError) -> XenbusState? {
    do throws(StoreError) {
      return try store.state("\(backendPath)/state")
    } catch  where error.isForbidden {
      // What a guest hears of a missing node whose parent is not its business.
      return nil
    } catch {
      throw .store(error)
    }
  }

  /// True when the toolstack wants the backend gone.
  public func backendIsLeaving() throws(FrontendDirectoryError) -> Bool {
    guard try backendState() != nil else { return true }
    return try use { store throws(StoreError) in try store.read("\(backendPath)/online") == "0" }
  }

  /// The message that a backend leaves in its error node, if it did and we may read it
  /// (error/backend/<kind>/<domid>/<devid>/error below the backend's domain).
  public var backendErrorText: String? {
    let root = "/local/domain/\(backendDomain)"
    guard backendPath.hasPrefix(root + "/") else { return nil }
    do throws(StoreError) {
      return try store.read("\(root)/error\(backendPath.dropFirst(root.count))/error")
    } catch {
      // Guests may be forbidden to read it; then there is nothing to tell.
      return nil
    }
  }

  /// What a state of the backend means to whoever waits.
  enum Verdict { case reached, wait, closed }

  /// Waits until `judge` is satisfied with the backend's state.
  func waitForBackend(
    _ wanted: String, until deadline: Deadline,
    _ judge: (XenbusState?) throws(FrontendDirectoryError) -> Verdict
  ) throws(FrontendDirectoryError) {
    try watchBackend()
    while true {
      // Events only say that something may have changed, so they are taken before the state is read.
      try takeWatchEvents()
      let state = try backendState()
      switch try judge(state) {
      case .reached: return
      case .closed: throw closed(in: state)
      case .wait: break
      }
      let left = deadline.left
      guard left > 0 else {
        throw .timedOut(
          path: "\(backendPath)/state", wanted: wanted, seen: state?.description ?? "absent",
          milliseconds: deadline.milliseconds, reason: backendErrorText)
      }
      do throws(SystemError) {
        // A lost connection does not wake the descriptor, only a call notices it.
        _ = try EventWait.wait(store.descriptor, -1, nanoseconds: min(left, 1_000_000_000))
      } catch {
        throw .system(error)
      }
    }
  }

  /// Begins a connection: goes to Initialising and waits for what the backend offers.
  func awaitOffer(until deadline: Deadline) throws(FrontendDirectoryError) {
    if try state() != .initialising { try setState(.initialising) }
    try waitForBackend("InitWait", until: deadline) { state throws(FrontendDirectoryError) in
      switch state {
      case .initWait: return .reached
      // A backend that was told to go away does not come back; otherwise it is between two connections.
      case .closed: return try backendIsLeaving() ? .closed : .wait
      default: return .wait
      }
    }
  }

  /// Closes in the order of Linux and Windows: 5, the backend's 5 or 6, 6, the backend's 6.
  func close(until deadline: Deadline) throws(FrontendDirectoryError) {
    try setState(.closing)
    try waitForBackend("Closing", until: deadline) { state in
      switch state {
      case nil, .closing, .closed: .reached
      default: .wait
      }
    }
    try setState(.closed)
    try waitForClosed(until: deadline)
  }

  /// Waits for the backend's end of a connection.
  func waitForClosed(until deadline: Deadline) throws(FrontendDirectoryError) {
    try waitForBackend("Closed", until: deadline) { state in
      switch state {
      case nil, .closed: .reached
      default: .wait
      }
    }
  }

  /// Has changes of the backend's directory make the store's descriptor readable.
  func watchBackend() throws(FrontendDirectoryError) {
    guard !watchesBackend else { return }
    try use { store throws(StoreError) in try store.watch(backendPath, token: "backend") }
    watchesBackend = true
  }

  /// Takes what the watches have to say; true if they said anything.
  @discardableResult
  func takeWatchEvents() throws(FrontendDirectoryError) -> Bool {
    try use { store throws(StoreError) in
      var any = false
      while try store.nextWatchEvent() != nil { any = true }
      return any
    }
  }

  /// The error that a backend which went away is reported as.
  func closed(in state: XenbusState?) -> FrontendDirectoryError {
    .backendClosed(path: backendPath, state: state, reason: backendErrorText)
  }
}
