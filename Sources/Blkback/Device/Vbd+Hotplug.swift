import RingKit

/// How far the toolstack's script is, which has to have ended well before a frontend is served.
enum HotplugProgress: Equatable {
  /// There is none.
  case notNeeded
  /// It has not ended yet.
  case awaited
  /// It has ended well.
  case connected
  /// It has ended badly; its own words, if it wrote any.
  case failed(String)

  /// A frontend may be served.
  var isReady: Bool { self == .notNeeded || self == .connected }

  /// Reads nodes `hotplug-status` and `hotplug-error` (xen-hotplug-common.sh).
  init(of nodes: BackendNodes, in store: any StoreAccess) throws(StoreError) {
    guard try Self.isNeeded(by: nodes, in: store) else {
      self = .notNeeded
      return
    }
    let status = try store.read("\(nodes.directory)/hotplug-status")
    switch status {
    case "connected": self = .connected
    case "error", "busy":
      self = .failed(try store.read("\(nodes.directory)/hotplug-error") ?? "it wrote \(status ?? "")")
    default: self = .awaited
    }
  }

  /// libxl names its script, and runs it only after it has seen InitWait (libxl_device.c, device_hotplug).
  /// xenopsd names none, but tells as well when it is done; kind `vbd3` has been so since tapback
  /// (backend.c).
  static func isNeeded(by nodes: BackendNodes, in store: any StoreAccess) throws(StoreError) -> Bool {
    if let script = try store.read("\(nodes.directory)/script"), !script.isEmpty { return true }
    return nodes.address.kind == "vbd3"
  }
}

extension Vbd {
  /// True for a disk whose toolstack runs a script that it names.
  func waitsForHotplug(_ nodes: BackendNodes) throws(StoreError) -> Bool {
    try environment.store.read("\(nodes.directory)/script").map { !$0.isEmpty } ?? false
  }

  /// Tells that a frontend waits for the script, once.
  func tellOfWaiting(_ nodes: BackendNodes) {
    let isWaiting =
      hotplug == .awaited && handshake.own == .initWait
      && (handshake.frontend == .initialised || handshake.frontend == .connected)
    guard isWaiting != (told["hotplug-wait"] != nil) else { return }
    let name = (try? environment.store.read("\(nodes.directory)/script")) ?? nil
    told["hotplug-wait"] = isWaiting ? "" : nil
    guard isWaiting else { return }
    environment.log(
      .information,
      "the frontend is ready; \(name ?? "the toolstack's script") has not written hotplug-status=connected yet",
      about: identity)
  }

  /// Tells what becomes of the script. The image of a disk whose script failed is let go: nobody can use the
  /// disk, and its nodes may stay for long.
  func followHotplug() {
    guard case .failed(let reason) = hotplug else {
      told["hotplug"] = nil
      return
    }
    guard told["hotplug"] != reason else { return }
    told["hotplug"] = reason
    report("the hotplug script failed: \(reason); the disk is not served before it has succeeded")
    if image != nil, connection == nil, isConnectionStable, !commands.isBusy { letGoOfImage() }
  }
}
