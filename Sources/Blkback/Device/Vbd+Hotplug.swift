import RingKit

extension Vbd {
  /// True for a disk whose toolstack runs a script that it names.
  func waitsForHotplug(_ nodes: BackendNodes) throws(StoreError) -> Bool {
    try environment.store.read("\(nodes.directory)/script").map { !$0.isEmpty } ?? false
  }

  /// Why the script that the toolstack runs now for this disk would end well in vain; nil when none is awaited, or
  /// nothing is known that hinders. What was in the way is tried again first: it may be mended by now.
  public func troubleOfScript() -> VbdError? {
    guard trouble != nil, hotplug == .awaited, handshake.own == .initWait else { return nil }
    publish(from: .initWait, thenState: .initWait)
    return waitsForImage ? nil : trouble
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
