import Blkback
import RingKit

/// A device as a toolstack numbers it.
protocol ToolstackDevice: CustomStringConvertible {
  /// Its directory's name, below that of its domain.
  var number: UInt32 { get }
  /// What its frontend's directory lies in: the name of the frontend's driver.
  static var frontendKind: String { get }
}

extension VirtualDevice: ToolstackDevice {
  static var frontendKind: String { "vbd" }
}

/// An interface's number in its guest (netif.h, handle).
struct InterfaceHandle: ToolstackDevice {
  var number: UInt32
  static var frontendKind: String { "vif" }
  var description: String { "interface \(number)" }
}

/// What the toolstack does for a device: its nodes, written and taken away. `xl` does the same with a hotplug
/// script in between (libxl_disk.c, device_disk_add); these verbs serve machines without one.
struct Toolstack<Device: ToolstackDevice> {
  let store: StoreClient
  let backendDomain: DomainID
  let kind: String

  init(host: any Hypervisor, kind: String) throws {
    store = try host.openStore()
    backendDomain = try store.ownDomain()
    self.kind = kind
  }

  /// Value of the node that marks a device as written here. The daemon takes such a device's nodes away when
  /// its domain is gone, because no other toolstack knows of them.
  static var mark: (name: String, value: String) { ("toolstack", "ringback") }

  func backendPath(_ domain: DomainID, _ device: Device) -> String {
    "/local/domain/\(backendDomain)/backend/\(kind)/\(domain)/\(device.number)"
  }

  func frontendPath(_ domain: DomainID, _ device: Device) -> String {
    "/local/domain/\(domain)/device/\(Device.frontendKind)/\(device.number)"
  }

  /// Writes both ends' nodes in one transaction: those that every device has, and those given.
  func attach(
    _ domain: DomainID, _ device: Device, frontendNodes: [(name: String, value: String)],
    backendNodes: [(name: String, value: String)]
  ) throws {
    let backend = backendPath(domain, device)
    let frontend = frontendPath(domain, device)
    guard try store.exists("/local/domain/\(domain)") else {
      throw CommandError("there is no domain \(domain); `xl list` shows those that run")
    }
    if let state = try store.state("\(backend)/state") {
      throw CommandError(
        "\(device) is already attached to domain \(domain) (state \(state)); detach it first")
    }
    try store.transaction { tree throws(StoreError) in
      try tree.remove(frontend)
      try tree.makeDirectory(frontend)
      try tree.setPermissions(
        [
          StorePermission(domain: domain, canRead: false, canWrite: false),
          StorePermission(domain: backendDomain, canRead: true, canWrite: false),
        ], of: frontend)
      try tree.makeDirectory(backend)
      try tree.setPermissions(
        [
          StorePermission(domain: backendDomain, canRead: false, canWrite: false),
          StorePermission(domain: domain, canRead: true, canWrite: false),
        ], of: backend)
      for (name, value) in [("backend", backend), ("backend-id", "\(backendDomain)")] + frontendNodes
        + [("state", "1")]
      {
        try tree.write("\(frontend)/\(name)", value)
      }
      for (name, value) in [("frontend", frontend), ("frontend-id", "\(domain)"), ("online", "1"), Self.mark]
        + backendNodes + [("state", "1")]
      {
        try tree.write("\(backend)/\(name)", value)
      }
    }
  }

  /// Asks the backend to let go (online 0 and state Closing in one transaction, as libxl does).
  func beginDetaching(_ domain: DomainID, _ device: Device) throws {
    let backend = backendPath(domain, device)
    guard try store.exists("\(backend)/state") else {
      throw CommandError("\(device) is not attached to domain \(domain); `ringback list` shows what is")
    }
    try store.transaction { tree throws(StoreError) in
      try tree.write("\(backend)/online", "0")
      try tree.write("\(backend)/state", "\(XenbusState.closing.rawValue)")
    }
  }

  /// Takes both ends' nodes away.
  func remove(_ domain: DomainID, _ device: Device) throws {
    let backend = backendPath(domain, device)
    let frontend = frontendPath(domain, device)
    try store.transaction { tree throws(StoreError) in
      try tree.remove(frontend, pruningBelow: "/local/domain/\(domain)/device")
      try tree.remove(backend, pruningBelow: "/local/domain/\(backendDomain)/backend")
    }
  }

  /// The error that the backend or the frontend has left for this device, if any (xenbus_client.c,
  /// xenbus_dev_error).
  func errorText(_ domain: DomainID, _ device: Device) throws -> String? {
    let address = DeviceAddress(kind: kind, domain: domain, device: device.number)
    return try store.read(BackendNodes.errorNode(of: address, backend: backendDomain))
  }

  /// Waits until the backend's state satisfies `isReached`, at most `seconds`; watches, never polls.
  func waitForState(
    of domain: DomainID, _ device: Device, seconds: Int, until isReached: (XenbusState?) -> Bool
  ) throws -> XenbusState? {
    let path = "\(backendPath(domain, device))/state"
    let token = "ringback-wait"
    try store.watch(path, token: token)
    let deadline = ContinuousClock.now + .seconds(seconds)
    while true {
      while try store.nextWatchEvent() != nil {}
      let state = try store.state(path)
      if isReached(state) { return state }
      let left = deadline - .now
      guard left > .zero else {
        throw CommandError(
          "\(device) of domain \(domain) is still in state \(state.map { "\($0)" } ?? "gone") after \(seconds) s "
            + "(\(path)); is `ringback serve` running for kind \(kind)?")
      }
      try store.waitForEvent(timeoutMilliseconds: Int32(left / .milliseconds(1)) + 1)
    }
  }
}

extension Toolstack<VirtualDevice> {
  /// Attaches a disk; `nodes` are those of the backend that describe it.
  func attach(
    _ domain: DomainID, _ device: VirtualDevice, parameters: String, nodes: [(name: String, value: String)]
  ) throws {
    try attach(
      domain, device,
      frontendNodes: [
        ("virtual-device", "\(device.number)"),
        ("device-type", nodes.first { $0.name == "device-type" }?.value ?? "disk"),
      ],
      backendNodes: [
        ("bootable", "1"), ("dev", "\(device)"), ("type", kind), ("params", parameters),
        ("hotplug-status", "connected"),
      ] + nodes)
  }
}

/// A command that could not be done: the reason, in words for the person who typed it.
struct CommandError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

extension StoreClient {
  /// Waits until a watch event may have come.
  func waitForEvent(timeoutMilliseconds: Int32) throws {
    var poll = DescriptorPoll()
    poll.set([(descriptor, false)])
    _ = try poll.wait(timeoutMilliseconds: timeoutMilliseconds)
  }
}
