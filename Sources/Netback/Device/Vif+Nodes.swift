import RingKit

/// What toolstack and guest may change of an interface that is served already.
extension Vif {
  /// Acts on nodes that mean something at any time (trap 40): everything else that is changed after the device
  /// was published has no effect before it connects anew.
  func followNodes(_ nodes: BackendNodes) throws(StoreError) {
    try followRate(nodes)
    try followCarrier(nodes)
    try followMulticast(nodes)
  }

  func followRate(_ nodes: BackendNodes) throws(StoreError) {
    guard configuration != nil else { return }
    do throws(VifError) {
      let rate = try VifConfiguration.rate(in: environment.store, directory: nodes.directory)
      told["rate"] = nil
      guard rate != configuration?.rate else { return }
      limiter.set(rate?.limits ?? .unlimited, atNanoseconds: MonotonicClock.nowNanoseconds())
      connection?.limitsChanged()
      configuration?.rate = rate
      environment.log(
        .information, rate.map { "limited to \($0.limits.bytesPerSecond) bytes a second" } ?? "not limited",
        about: identity)
    } catch {
      // The old rate stays in force.
      tellOnce("rate", error.description)
    }
  }

  func followCarrier(_ nodes: BackendNodes) throws(StoreError) {
    let isWanted = try environment.store.read("\(nodes.directory)/carrier") != "0"
    guard isWanted != isCarrierWanted else { return }
    isCarrierWanted = isWanted
    applyCarrier()
    environment.log(.information, "the link is \(isWanted ? "up" : "down") by node carrier", about: identity)
  }

  func followMulticast(_ nodes: BackendNodes) throws(StoreError) {
    guard offer.multicastControl, case .connected = handshake.link else { return }
    let path = "\(nodes.frontendDirectory)/request-multicast-control"
    if !watchesMulticast {
      try environment.store.watch(path, token: frontendToken)
      watchesMulticast = true
    }
    do throws(StoreError) {
      let isActive = try NetFrontendParameters.controlsMulticast(
        in: environment.store, nodes.frontendDirectory)
      multicast.setActive(isActive)
    } catch {
      guard error.isAboutTheNode else { throw error }
      tellOnce("multicast", "\(error); the filter stays as it is")
    }
  }

  /// The other side sees a carrier while a frontend takes packets and nobody wants the link down.
  func applyCarrier() {
    guard let connection else { return }
    connection.setLinkUp(isCarrierWanted)
    link?.setCarrier(isCarrierWanted && !isStalled)
  }

  func followHotplug() {
    guard case .failed(let reason) = hotplug else {
      told["hotplug"] = nil
      return
    }
    guard told["hotplug"] != reason else { return }
    told["hotplug"] = reason
    report("the hotplug script failed: \(reason); the interface is not served before it has succeeded")
  }

  func unwatchFrontend() {
    guard let nodes else { return }
    try? environment.store.unwatch(nodes.frontendState, token: frontendToken)
    if watchesMulticast {
      try? environment.store.unwatch(
        "\(nodes.frontendDirectory)/request-multicast-control", token: frontendToken)
    }
    watchesMulticast = false
  }
}
