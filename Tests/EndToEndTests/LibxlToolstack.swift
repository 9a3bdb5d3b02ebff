import Foundation
import RingKit

/// A toolstack that does what libxl does with a disk of backendtype=tap, step by step and no more cleverly
/// (libxl_disk.c, device_disk_add; libxl_device.c, from libxl__wait_device_connection to
/// device_hotplug_done).
final class LibxlToolstack {
  /// What a hotplug script did.
  enum Script: Sendable {
    /// It wrote its nodes and said that it is done.
    case connects
    /// It wrote why not.
    case fails(String)
    /// It is not there, or was killed: nothing is written.
    case isSilent
  }

  /// What `xl` tells its user.
  enum Failure: Error, Equatable {
    /// The state was not seen within the time.
    case timedOut(wanted: XenbusState, last: XenbusState?)
    /// The directory went while it was waited for.
    case removed
    /// The script failed; its words, if there were any.
    case script(String?)
  }

  /// Longest waits, milliseconds: libxl has 10 s for both (LIBXL_INIT_TIMEOUT, LIBXL_DESTROY_TIMEOUT).
  static let patience = 10_000

  private let store: StoreClient
  /// The toolstack of the domain that serves: the same one in domain 0, `xl devd` in a driver domain.
  private let backendStore: StoreClient
  let backendDomain: DomainID
  private var watchCount = 0

  /// `store` is domain 0's, `backendStore` the serving domain's, which may be domain 0 too.
  init(store: StoreClient, backendStore: StoreClient, backendDomain: DomainID) {
    (self.store, self.backendStore, self.backendDomain) = (store, backendStore, backendDomain)
  }

  func backendPath(_ domain: DomainID, _ device: UInt32) -> String {
    "/local/domain/\(backendDomain)/backend/vbd3/\(domain)/\(device)"
  }

  func frontendPath(_ domain: DomainID, _ device: UInt32) -> String {
    "/local/domain/\(domain)/device/vbd/\(device)"
  }

  func libxlPath(_ domain: DomainID, _ device: UInt32) -> String { "/libxl/\(domain)/device/vbd/\(device)" }

  // MARK: Attaching

  /// `xl block-attach`: nodes, the wait for InitWait, the script.
  func attach(
    _ domain: DomainID, _ device: UInt32, params: String, mode: String = "w", script: Script = .connects
  ) throws {
    try writeNodes(domain, device, params: params, mode: mode)
    try waitForInitWait(domain, device)
    try run(script, domain, device)
  }

  /// All nodes of both ends, and libxl's copy, in one transaction.
  func writeNodes(
    _ domain: DomainID, _ device: UInt32, params: String, mode: String = "w",
    scriptName: String? = "/etc/xen/scripts/block-tap", more: [(String, String)] = []
  ) throws {
    let (front, back) = (frontendPath(domain, device), backendPath(domain, device))
    let copy = libxlPath(domain, device)
    var backNodes = [("params", params)]
    if let scriptName { backNodes.append(("script", scriptName)) }
    backNodes += [
      ("frontend-id", "\(domain)"), ("online", "1"), ("removable", "0"), ("bootable", "1"), ("state", "1"),
      ("dev", "xvda"), ("type", "vbd3"), ("mode", mode), ("device-type", "disk"),
      ("discard-enable", mode == "w" ? "1" : "0"), ("specification", "xen"),
    ]
    backNodes += more
    try store.transaction { tree throws(StoreError) in
      try tree.remove(copy)
      try tree.write("\(copy)/frontend", front)
      try tree.write("\(copy)/backend", back)
      try tree.remove(front)
      try tree.makeDirectory(front)
      try tree.setPermissions(
        [
          StorePermission(domain: domain, canRead: false, canWrite: false),
          StorePermission(domain: backendDomain, canRead: true, canWrite: false),
        ], of: front)
      try tree.write("\(front)/backend", back)
      for (name, value) in [
        ("backend-id", "\(backendDomain)"), ("state", "1"), ("virtual-device", "\(device)"),
        ("device-type", "disk"), ("trusted", "1"), ("protocol", "x86_64-abi"),
      ] {
        try tree.write("\(front)/\(name)", value)
      }
      try tree.remove(back)
      try tree.makeDirectory(back)
      try tree.setPermissions(
        [
          StorePermission(domain: backendDomain, canRead: false, canWrite: false),
          StorePermission(domain: domain, canRead: true, canWrite: false),
        ], of: back)
      try tree.write("\(back)/frontend", front)
      for (name, value) in backNodes { try tree.write("\(back)/\(name)", value) }
      for (name, value) in backNodes { try tree.write("\(copy)/\(name)", value) }
    }
  }

  /// libxl looks for exactly this state, whatever came before or after it.
  func waitForInitWait(_ domain: DomainID, _ device: UInt32) throws {
    try wait(for: .initWait, of: "\(backendPath(domain, device))/state")
  }

  /// What block-tap writes (tools/hotplug/Linux/block-tap, add), by the serving domain.
  func run(_ script: Script, _ domain: DomainID, _ device: UInt32) throws {
    let back = backendPath(domain, device)
    switch script {
    case .connects:
      for (name, value) in [
        ("pid", "4711"), ("minor", "0"), ("physical-device-path", "/run/blktap-control/nbd4711.0"),
        ("hotplug-status", "connected"),
      ] {
        try backendStore.write("\(back)/\(name)", value)
      }
    case .fails(let words):
      // xen-hotplug-common.sh, fatal.
      try backendStore.write("\(back)/hotplug-error", words)
      try backendStore.write("\(back)/hotplug-status", "error")
      throw Failure.script(try backendStore.read("\(back)/hotplug-error"))
    case .isSilent:
      throw Failure.script(nil)
    }
  }

  // MARK: Removing

  /// `xl block-detach`, or what becomes of each disk when its domain is destroyed (`isForced`). After a wait
  /// in vain the frontend's directory is taken away, as libxl does.
  func remove(_ domain: DomainID, _ device: UInt32, isForced: Bool = false, patience: Int = patience) throws {
    let (front, back) = (frontendPath(domain, device), backendPath(domain, device))
    try beginRemoving(domain, device, isForced: isForced)
    do {
      try wait(for: .closed, of: "\(back)/state", milliseconds: patience)
    } catch Failure.timedOut where !isForced {
      return try remove(domain, device, isForced: true)
    }
    // The script's part; in a driver domain `xl devd` takes the backend's directory away, and domain 0 waits.
    try backendStore.transaction { tree throws(StoreError) in
      try tree.remove(back, pruningBelow: "/local/domain/\(backendDomain)/backend")
    }
    try store.transaction { tree throws(StoreError) in
      try tree.remove(front, pruningBelow: "/local/domain/\(domain)/device")
      try tree.remove(libxlPath(domain, device), pruningBelow: "/libxl")
      try tree.remove(back, pruningBelow: "/local/domain/\(backendDomain)/backend")
    }
  }

  /// The transaction with which a removal begins.
  func beginRemoving(_ domain: DomainID, _ device: UInt32, isForced: Bool = false) throws {
    let (front, back) = (frontendPath(domain, device), backendPath(domain, device))
    try store.transaction { tree throws(StoreError) in
      if isForced { try tree.remove(front, pruningBelow: "/local/domain/\(domain)/device") }
      guard let state = try tree.state("\(back)/state") else { return }
      try tree.write("\(back)/online", "0")
      if state != .closed { try tree.write("\(back)/state", XenbusState.closing.text) }
    }
  }

  // MARK: Waiting

  /// Reads the value at every watch, and compares it as it is then (libxl_event.c, devstate_callback).
  func wait(for wanted: XenbusState, of path: String, milliseconds: Int = patience) throws {
    watchCount += 1
    let token = "libxl \(watchCount)"
    try store.watch(path, token: token)
    defer { try? store.unwatch(path, token: token) }
    let deadline = ContinuousClock.now + .milliseconds(milliseconds)
    var last: XenbusState?
    while true {
      guard let event = try store.nextWatchEvent() else {
        let left = deadline - .now
        guard left > .zero else { throw Failure.timedOut(wanted: wanted, last: last) }
        var poll = DescriptorPoll()
        poll.set([(store.descriptor, false)])
        _ = try poll.wait(timeoutMilliseconds: Int32(left / .milliseconds(1)) + 1)
        continue
      }
      guard event.token == token else { continue }
      guard let state = try store.state(path) else { throw Failure.removed }
      if state == wanted { return }
      last = state
    }
  }
}
