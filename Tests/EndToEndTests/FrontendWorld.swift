import Blkback
import Foundation
import Frontends
import Loopback
import RingKit
import Testing

/// What went wrong with a test's surroundings.
struct WorldFailure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A machine with a daemon in domain 0, and disks for guests whose frontends run in this process.
final class FrontendWorld {
  let host: LoopbackHost
  private(set) var daemon: FrontendDaemon
  private let makeDaemon: () throws -> FrontendDaemon
  private let directory: URL
  let toolstack: StoreClient
  /// Guests that live: a domain dies with its last connection.
  private var guests: [DomainID: LoopbackHypervisor] = [:]

  static let backend = DomainID(rawValue: 0)
  static let guest = DomainID(rawValue: 7)
  static let kindPath = "/local/domain/0/backend/vbd"
  /// xvda
  static let device: UInt32 = 51712

  /// What carries the daemon's I/O where a test does not say: RINGBACK_TEST_ENGINE, or what it chooses.
  static let usualEngine =
    ProcessInfo.processInfo.environment["RINGBACK_TEST_ENGINE"].flatMap(IOEngine.init) ?? .automatic

  init(
    offer: VbdOffer = VbdOffer(), threadCount: Int = 1, poolByteCount: Int = 8 << 20,
    engine: IOEngine = usualEngine, pollNanoseconds: UInt64 = 0,
    opening: @escaping FrontendDaemon.StoreOpening = { (disk) throws(VbdError) in try disk.openStore() }
  ) throws {
    // libxenstore writes to sockets whose peer may be gone; the program ignores the signal from its start.
    _ = signal(SIGPIPE, SIG_IGN)
    directory = FileManager.default.temporaryDirectory.appending(
      path: "ringback-\(UUID().uuidString.prefix(8))")
    host = try LoopbackHost(directory: directory.path)
    toolstack = try host.hypervisor(for: Self.backend).openStore()
    var sizes = DataThreadConfiguration()
    sizes.poolByteCount = poolByteCount
    sizes.registersPool = false
    sizes.engine = engine
    sizes.pollNanoseconds = pollNanoseconds
    makeDaemon = { [host, sizes] in
      try FrontendDaemon(
        hypervisor: try host.hypervisor(for: Self.backend), offer: offer, threadCount: threadCount,
        sizes: sizes, opening: opening)
    }
    daemon = try makeDaemon()
  }

  /// Begins another daemon, after the one there was has stopped.
  func startAgain() throws { daemon = try makeDaemon() }

  deinit {
    host.stop()
    try? FileManager.default.removeItem(at: directory)
  }

  /// Ends the daemon and says whether it ended well.
  func stop() throws { try daemon.stop() }

  /// A file in the world's directory.
  func path(_ name: String) -> String { directory.appending(path: name).path }

  func backendPath(_ domain: DomainID = guest, _ device: UInt32 = device) -> String {
    "\(Self.kindPath)/\(domain)/\(device)"
  }

  /// Makes a sparse image and the nodes of a disk, as a toolstack does (libxl_disk.c, device_disk_add);
  /// `nodes` are nodes of the backend that it writes otherwise, or not at all (nil). `replacing` takes an
  /// old disk's nodes away in the same transaction, so that nobody sees them gone.
  @discardableResult
  func addDisk(
    _ domain: DomainID = guest, _ device: UInt32 = device, byteCount: Int = 8 << 20, writable: Bool = true,
    nodes: [String: String?] = [:], replacing: Bool = false
  ) throws -> String {
    let image = path("\(domain)-\(device).img")
    guard FileManager.default.createFile(atPath: image, contents: nil) else {
      throw WorldFailure("cannot make \(image)")
    }
    let file = try FileHandle(forWritingTo: URL(filePath: image))
    try file.truncate(atOffset: UInt64(byteCount))
    try file.close()
    if guests[domain] == nil {
      try host.addDomain(domain)
      guests[domain] = try host.hypervisor(for: domain)
    }
    let (front, back) = ("/local/domain/\(domain)/device/vbd/\(device)", backendPath(domain, device))
    try toolstack.transaction { tree throws(StoreError) in
      if replacing { for path in [front, back] { try tree.remove(path) } }
      for (path, owner, reader) in [(front, domain, Self.backend), (back, Self.backend, domain)] {
        try tree.makeDirectory(path)
        try tree.setPermissions(
          [
            StorePermission(domain: owner, canRead: false, canWrite: false),
            StorePermission(domain: reader, canRead: true, canWrite: false),
          ], of: path)
      }
      for (name, value) in [
        ("backend", back), ("backend-id", "0"), ("virtual-device", "\(device)"), ("state", "1"),
      ] {
        try tree.write("\(front)/\(name)", value)
      }
      for (name, value) in [
        ("frontend", front), ("frontend-id", "\(domain)"), ("online", "1"), ("mode", writable ? "w" : "r"),
        ("params", "raw:\(image)"), ("state", "1"),
      ] where nodes[name] == nil {
        try tree.write("\(back)/\(name)", value)
      }
      for (name, value) in nodes {
        if let value { try tree.write("\(back)/\(name)", value) }
      }
    }
    return image
  }

  /// Writes one node of the usual disk's backend, as a toolstack or its script does.
  func write(_ name: String, _ value: String) throws {
    try toolstack.write("\(backendPath())/\(name)", value)
  }

  /// Asks for the disk's end, as a toolstack does.
  func detach(_ domain: DomainID = guest, _ device: UInt32 = device) throws {
    let path = backendPath(domain, device)
    try toolstack.transaction { tree throws(StoreError) in
      try tree.write("\(path)/online", "0")
      try tree.write("\(path)/state", XenbusState.closing.text)
    }
  }

  /// The reason that the backend gave the administrator, if any.
  func errorText(_ domain: DomainID = guest, _ device: UInt32 = device) throws -> String? {
    try toolstack.read("/local/domain/0/error/backend/vbd/\(domain)/\(device)/error")
  }

  /// Pages of the usual guest that somebody has mapped.
  var mappedPageCount: Int { host.machine.mappedPageCount(of: Self.guest) }

  /// A frontend that is not yet connected.
  func frontend(
    _ domain: DomainID = guest, _ device: UInt32 = device, _ options: BlockFrontendOptions = .init()
  ) throws -> BlockFrontend {
    guard let guest = guests[domain] else { throw WorldFailure("there is no domain \(domain)") }
    return try BlockFrontend(hypervisor: guest, domain: domain, device: device, options: options)
  }

  /// A connected frontend of the usual disk.
  func connected(_ options: BlockFrontendOptions = .init()) throws -> BlockFrontend {
    let frontend = try frontend(Self.guest, Self.device, options)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    return frontend
  }
}

/// Longest wait for anything: a hang fails with a message instead.
let worldMilliseconds = 15_000

extension BlockFrontend {
  /// Submits one request, waits for its answer, and releases it.
  func perform(_ request: BlockFrontRequest) throws -> BlockStatus {
    guard let handle = try submit(request) else { throw WorldFailure("no room for a request") }
    try push()
    let completion = try answer()
    guard completion.handle == handle else { throw WorldFailure("another request was answered") }
    release(handle)
    return completion.response.status
  }

  /// The next answer.
  func answer() throws -> BlockCompletion {
    while true {
      if let completion = try nextCompletion() { return completion }
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no answer") }
    }
  }
}

extension BlockWorkloadResult {
  /// Records what must not be in a verified run.
  func expectIntegrity(sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(errors == 0, "\(String(describing: firstError))", sourceLocation: sourceLocation)
    #expect(mismatches == 0, "\(String(describing: firstMismatch))", sourceLocation: sourceLocation)
    #expect(verifiedSectors > 0, sourceLocation: sourceLocation)
  }
}
