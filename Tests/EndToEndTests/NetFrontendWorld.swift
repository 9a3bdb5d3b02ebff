import Foundation
import Frontends
import Loopback
import Netback
import RingKit
import Testing

/// A machine with an interface of a guest, whose frontend runs in this process, and model backends for it.
final class NetFrontendWorld {
  let host: LoopbackHost
  let toolstack: StoreClient
  private let directory: URL
  private var guest: LoopbackHypervisor?

  static let backend = DomainID(rawValue: 0)
  static let domain = DomainID(rawValue: 9)
  static let path = "/local/domain/0/backend/vif/9/0"
  static let frontendPath = "/local/domain/9/device/vif/0"

  init() throws {
    // libxenstore writes to sockets whose peer may be gone; the program ignores the signal from its start.
    _ = signal(SIGPIPE, SIG_IGN)
    directory = FileManager.default.temporaryDirectory.appending(
      path: "ringback-\(UUID().uuidString.prefix(8))")
    host = try LoopbackHost(directory: directory.path)
    toolstack = try host.hypervisor(for: Self.backend).openStore()
    try host.addDomain(Self.domain)
    guest = try host.hypervisor(for: Self.domain)
    try addInterface()
  }

  deinit {
    host.stop()
    try? FileManager.default.removeItem(at: directory)
  }

  /// The nodes of a toolstack (libxl_nic.c, libxl__device_nic_setdefault and device_nic_add).
  private func addInterface() throws {
    let (front, back) = (Self.frontendPath, Self.path)
    try toolstack.transaction { tree throws(StoreError) in
      for (path, owner, reader) in [(front, Self.domain, Self.backend), (back, Self.backend, Self.domain)] {
        try tree.makeDirectory(path)
        try tree.setPermissions(
          [
            StorePermission(domain: owner, canRead: false, canWrite: false),
            StorePermission(domain: reader, canRead: true, canWrite: false),
          ], of: path)
      }
      for (name, value) in [
        ("backend", back), ("backend-id", "0"), ("handle", "0"), ("mac", "00:16:3e:12:34:56"),
        ("mtu", "9000"), ("state", "1"),
      ] {
        try tree.write("\(front)/\(name)", value)
      }
      for (name, value) in [
        ("frontend", front), ("frontend-id", "9"), ("online", "1"), ("handle", "0"),
        ("mac", "00:16:3e:12:34:56"), ("bridge", "xenbr0"), ("hotplug-status", "connected"), ("state", "1"),
      ] {
        try tree.write("\(back)/\(name)", value)
      }
    }
  }

  /// Starts a backend for the interface.
  func backend(_ script: NetModelBackend.Script = .init()) throws -> NetModelBackend {
    try NetModelBackend(
      hypervisor: try host.hypervisor(for: Self.backend), path: Self.path, frontendPath: Self.frontendPath,
      frontend: Self.domain, script: script)
  }

  /// The machine as the guest sees it.
  func guestHypervisor() throws -> LoopbackHypervisor {
    guard let guest else { throw WorldFailure("there is no guest") }
    return guest
  }

  /// A frontend that is not yet connected.
  func frontend(_ options: NetFrontendOptions = .init()) throws -> NetFrontend {
    try NetFrontend(hypervisor: guestHypervisor(), domain: Self.domain, device: 0, options: options)
  }

  /// A frontend that is connected.
  func connected(_ options: NetFrontendOptions = .init()) throws -> NetFrontend {
    let frontend = try frontend(options)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    return frontend
  }

  /// Pages of the guest that somebody has mapped.
  var mappedPageCount: Int { host.machine.mappedPageCount(of: Self.domain) }

  /// A node of the backend, as its toolstack writes it.
  func write(_ name: String, _ value: String) throws { try toolstack.write("\(Self.path)/\(name)", value) }

  /// A node of the frontend.
  func frontendNode(_ name: String) throws -> String? {
    try toolstack.read("\(Self.frontendPath)/\(name)")
  }
}

extension NetFrontend {
  /// Waits for the next packet of a queue, posting pages meanwhile.
  func receive(_ queue: Int = 0) throws -> NetReceivedPacket {
    let receiver = queues[queue].receiver
    while true {
      if let packet = try receiver.nextPacket() { return packet }
      receiver.post()
      try push()
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no packet") }
      for queue in queues { try queue.transmitter.reap() }
    }
  }

  /// Waits for the answer to the next packet of a queue.
  func completion(_ queue: Int = 0) throws -> NetTransmitCompletion {
    while true {
      if let completion = try queues[queue].transmitter.nextCompletion() { return completion }
      try push()
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no answer") }
    }
  }
}
