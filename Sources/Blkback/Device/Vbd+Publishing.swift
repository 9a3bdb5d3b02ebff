import RingKit

/// What a disk announces of itself.
extension Vbd {
  func publish(from: XenbusState, thenState state: XenbusState) {
    if from == .initialising { forgetDescription() }
    do throws(VbdError) {
      if try imageIsAboutToBeFree() {
        waitsForImage = true
        return environment.log(
          .information, "waits until another disk has let go of its image", about: identity)
      }
      let features = try openedFeatures()
      // Before anybody can see the state: a device model may be started at once then.
      stepAside()
      try write(features, from: from, to: state)
    } catch {
      report(error.description)
      // As after a connection that failed: Closing, which ends as Closed, with the reason in the error node.
      _ = try? write([], from: from, to: .closing)
      refresh()
    }
  }

  /// The features of the disk. While a script is awaited, a disk that cannot be opened goes to InitWait all
  /// the same: libxl runs the script only then, and only the script's words reach its user.
  private func openedFeatures() throws(VbdError) -> [DeviceNode] {
    do throws(VbdError) {
      let features = try featureNodes()
      if trouble != nil { clearReport() }
      trouble = nil
      return features
    } catch {
      guard !hotplug.isReady else { throw error }
      trouble = error
      report(error.description)
      return offer.nodesWithoutMedium + ownNodes
    }
  }

  func featureNodes() throws(VbdError) -> [DeviceNode] {
    try offer.nodes(for: knownProperties()) + ownNodes
  }

  /// What tells others who serves.
  private var ownNodes: [DeviceNode] {
    var nodes: [DeviceNode] = []
    if let process = environment.statisticsProcess {
      nodes.append(DeviceNode("kthread-pid", String(process)))
    }
    if let server = environment.serverName { nodes.append(DeviceNode(BackendRival.node, server)) }
    return nodes
  }

  private func imageIsAboutToBeFree() throws(VbdError) -> Bool {
    guard image == nil else { return false }
    let directory = try findNodes().directory
    do throws(StoreError) {
      guard let wanted = try environment.store.read("\(directory)/params"), !wanted.isEmpty else {
        return false
      }
      return environment.isLettingGo(ofImage: wanted, besides: identity)
    } catch {
      throw VbdError(error)
    }
  }

  /// A daemon that takes over a connected disk does not publish its features anew.
  func announceProcess() {
    guard let nodes else { return }
    do {
      var stale: [DeviceNode] = []
      for node in ownNodes where try environment.store.read("\(nodes.directory)/\(node.name)") != node.value {
        stale.append(node)
      }
      if !stale.isEmpty { try writePrivate(stale) }
    } catch {
      environment.log(.warning, "others will not find out who serves the disk: \(error)", about: identity)
    }
  }
}
