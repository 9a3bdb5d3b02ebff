/// How far the toolstack's script is, which has to have ended well before a frontend is served.
public enum HotplugProgress: Equatable, Sendable {
  /// There is none.
  case notNeeded
  /// It has not ended yet.
  case awaited
  /// It has ended well.
  case connected
  /// It has ended badly; its own words, if it wrote any.
  case failed(String)

  /// A frontend may be served.
  public var isReady: Bool { self == .notNeeded || self == .connected }

  /// Reads nodes `hotplug-status` and `hotplug-error` (xen-hotplug-common.sh).
  public init(of nodes: BackendNodes, in store: any StoreAccess) throws(StoreError) {
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
  private static func isNeeded(by nodes: BackendNodes, in store: any StoreAccess) throws(StoreError) -> Bool {
    if let script = try store.read("\(nodes.directory)/script"), !script.isEmpty { return true }
    return nodes.address.kind == "vbd3"
  }
}
