import Blkback
import Foundation
import Frontends
import Loopback
import RingKit

/// A machine with libxl's toolstack and a daemon for `vbd3`, in domain 0 or in a driver domain.
final class LibxlWorld {
  let host: LoopbackHost
  let toolstack: LibxlToolstack
  /// Domain 0's xenstore.
  let store: StoreClient
  let backend: DomainID
  private(set) var daemon: FrontendDaemon
  private let makeDaemon: () throws -> FrontendDaemon
  private let directory: URL
  private let presence: LoopbackHypervisor
  private var guests: [DomainID: LoopbackHypervisor] = [:]

  static let guest = DomainID(rawValue: 7)
  /// xvda
  static let device: UInt32 = 51712

  init(
    backend: DomainID = DomainID(rawValue: 0), offer: VbdOffer = VbdOffer(), threadCount: Int = 1,
    opening: @escaping FrontendDaemon.StoreOpening = { (disk) throws(VbdError) in try disk.openStore() }
  ) throws {
    _ = signal(SIGPIPE, SIG_IGN)
    self.backend = backend
    directory = FileManager.default.temporaryDirectory.appending(
      path: "ringback-\(UUID().uuidString.prefix(8))")
    host = try LoopbackHost(directory: directory.path)
    store = try host.hypervisor(for: DomainID(rawValue: 0)).openStore()
    if backend.rawValue != 0 {
      try host.addDomain(backend)
      // What `xl create` gives a driver domain (libxl_create.c, libxl__domain_make): it may write below these
      // two, and nowhere else in its home.
      for name in ["backend", "error"] {
        let path = "/local/domain/\(backend)/\(name)"
        try store.makeDirectory(path)
        try store.setPermissions(
          [StorePermission(domain: backend, canRead: false, canWrite: false)], of: path)
      }
      try store.setPermissions(
        [
          StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false),
          StorePermission(domain: backend, canRead: true, canWrite: false),
        ], of: "/local/domain/\(backend)")
    }
    presence = try host.hypervisor(for: backend)
    toolstack = LibxlToolstack(
      store: store, backendStore: try presence.openStore(), backendDomain: backend)
    var sizes = DataThreadConfiguration()
    sizes.poolByteCount = 8 << 20
    sizes.registersPool = false
    sizes.engine = FrontendWorld.usualEngine
    makeDaemon = { [host, sizes] in
      try FrontendDaemon(
        hypervisor: try host.hypervisor(for: backend), kind: "vbd3", offer: offer, threadCount: threadCount,
        sizes: sizes, opening: opening)
    }
    daemon = try makeDaemon()
  }

  deinit {
    host.stop()
    try? FileManager.default.removeItem(at: directory)
  }

  /// Begins another daemon, after the one there was has stopped, or beside it.
  func startAnother() throws -> FrontendDaemon {
    daemon = try makeDaemon()
    return daemon
  }

  /// A file in the world's directory.
  func path(_ name: String) -> String { directory.appending(path: name).path }

  /// A sparse image; gives its `params`.
  func makeImage(_ name: String = "disk.img", byteCount: Int = 1 << 20) throws -> String {
    let file = path(name)
    guard FileManager.default.createFile(atPath: file, contents: nil) else {
      throw WorldFailure("cannot make \(file)")
    }
    let handle = try FileHandle(forWritingTo: URL(filePath: file))
    try handle.truncate(atOffset: UInt64(byteCount))
    try handle.close()
    return "aio:\(file)"
  }

  /// Makes a domain.
  func addGuest(_ domain: DomainID = guest) throws {
    try host.addDomain(domain)
    guests[domain] = try host.hypervisor(for: domain)
  }

  /// Ends a domain: it dies with what it has shared, once nobody here holds a frontend of it.
  func removeGuest(_ domain: DomainID = guest) { guests[domain] = nil }

  /// A frontend that is not yet connected.
  func frontend(
    _ domain: DomainID = guest, _ device: UInt32 = device, _ options: BlockFrontendOptions = .init()
  ) throws -> BlockFrontend {
    guard let guest = guests[domain] else { throw WorldFailure("there is no domain \(domain)") }
    return try BlockFrontend(hypervisor: guest, domain: domain, device: device, options: options)
  }

  /// A frontend that connects meanwhile, on a thread of its own.
  func connecting(_ domain: DomainID = guest, _ device: UInt32 = device) throws -> ConnectingFrontend {
    ConnectingFrontend(try frontend(domain, device))
  }

  /// Node of the backend.
  func node(_ name: String, _ domain: DomainID = guest, _ device: UInt32 = device) throws -> String? {
    try store.read("\(toolstack.backendPath(domain, device))/\(name)")
  }

  func backendState(_ domain: DomainID = guest, _ device: UInt32 = device) throws -> XenbusState? {
    try store.state("\(toolstack.backendPath(domain, device))/state")
  }

  /// Pages of a guest that somebody has mapped.
  func mappedPageCount(_ domain: DomainID = guest) -> Int { host.machine.mappedPageCount(of: domain) }

  /// What the daemon tells the administrator in the store.
  func errorText(_ domain: DomainID = guest, _ device: UInt32 = device) throws -> String? {
    try store.read("/local/domain/\(backend)/error/backend/vbd3/\(domain)/\(device)/error")
  }

  /// Every node that is there, but for what a guest's home has by itself.
  func allNodes() throws -> Set<String> {
    var found: Set<String> = []
    func walk(_ path: String) throws {
      for name in try store.list(path.isEmpty ? "/" : path) ?? [] {
        found.insert("\(path)/\(name)")
        try walk("\(path)/\(name)")
      }
    }
    try walk("")
    return found
  }

  /// What is there and was not, and the other way round, but for directories that a toolstack keeps.
  func difference(since before: Set<String>) throws -> [String] {
    var kept: Set = ["/libxl"]
    for name in ["backend", "error"] { kept.insert("/local/domain/\(backend)/\(name)") }
    for domain in guests.keys { kept.insert("/local/domain/\(domain)/device") }
    return try allNodes().symmetricDifference(before).subtracting(kept).sorted()
  }

  /// Has a daemon take in everything that was written before: it looks at all disks in each turn.
  func settle(_ daemon: FrontendDaemon? = nil) throws {
    for _ in 0..<3 { try (daemon ?? self.daemon).turn() }
  }

  /// Waits until something is so, which only a broken program never makes so.
  func wait(for what: String, _ isDone: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !isDone() {
      guard .now < deadline else {
        throw WorldFailure("waited for \(what); \(host.machine.statistics), log \(daemon.lines.suffix(8))")
      }
      sched_yield()
    }
  }

  /// Waits for a line of the log.
  func waitForLine(_ words: String...) throws -> String {
    var found: String?
    try wait(for: "a line with \(words)") {
      found = daemon.lines.map(\.message).first { line in words.allSatisfy { line.contains($0) } }
      return found != nil
    }
    return found ?? ""
  }
}

/// A frontend on its way to Connected.
final class ConnectingFrontend: @unchecked Sendable {
  // Sound: the thread alone uses these until it has signalled its end.
  private let frontend: BlockFrontend
  private var failure: (any Error)?
  private let ended = DispatchSemaphore(value: 0)

  init(_ frontend: BlockFrontend) {
    self.frontend = frontend
    let thread = Thread { [self] in
      do {
        try self.frontend.connect(timeoutMilliseconds: worldMilliseconds)
      } catch {
        failure = error
      }
      ended.signal()
    }
    thread.start()
  }

  /// The connected frontend, or what went wrong.
  func result() throws -> BlockFrontend {
    guard ended.wait(timeout: .now() + 20) == .success else { throw WorldFailure("the frontend hangs") }
    if let failure { throw failure }
    return frontend
  }
}
