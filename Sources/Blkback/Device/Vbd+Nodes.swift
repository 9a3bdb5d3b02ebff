import RingKit

/// What toolstack and guest may change of a disk that is served already.
extension Vbd {
  /// Watches the frontend's state, and for a drive its wish to have the medium ejected. No more, because
  /// xenstored allows a driver domain 128 watches.
  func watchFrontend(_ nodes: BackendNodes) throws(StoreError) {
    let token = environment.frontendToken(of: identity)
    try environment.store.watch(nodes.frontendState, token: token)
    if watchesEject { try environment.store.watch(ejectNode(nodes), token: token) }
  }

  /// Ends the watches.
  func unwatchFrontend(_ nodes: BackendNodes) {
    let token = environment.frontendToken(of: identity)
    try? environment.store.unwatch(nodes.frontendState, token: token)
    if watchesEject { try? environment.store.unwatch(ejectNode(nodes), token: token) }
    watchesEject = false
  }

  /// Acts on nodes that mean something at any time. Everything else that is changed after the disk was
  /// published has no effect before it connects anew.
  func followNodes(_ nodes: BackendNodes) throws(StoreError) {
    try followLimits(nodes)
    guard let configuration, configuration.canChangeMedium else { return }
    if !watchesEject {
      try environment.store.watch(ejectNode(nodes), token: environment.frontendToken(of: identity))
      watchesEject = true
    }
    try followEject(nodes)
    try followMedium(nodes)
  }

  private func ejectNode(_ nodes: BackendNodes) -> String { "\(nodes.frontendDirectory)/eject" }

  /// A guest that writes "eject" wants its drive open (libxl_disk.c, disk_eject_xswatch_callback). Only once
  /// for each time: libxl takes the word back, and so do we where we may.
  private func followEject(_ nodes: BackendNodes) throws(StoreError) {
    let path = ejectNode(nodes)
    var wish: String?
    do throws(StoreError) {
      wish = try environment.store.read(path)
    } catch {
      // The guest may have made it unreadable, or no text.
      guard error.isAboutTheNode else { throw error }
    }
    let isWanted = wish == "eject"
    defer { ejectIsWanted = isWanted }
    guard isWanted, !ejectIsWanted, configuration?.isEmpty == false, !isPaused else { return }
    environment.log(.information, "the guest ejects the medium", about: identity)
    changeMedium(to: nil) { [self] failure in
      if let failure { report("eject: \(failure)") }
    }
    do throws(StoreError) {
      try environment.store.write(path, "")
    } catch {
      // In a driver domain the node is not ours to write; libxl resets it.
      guard error.isAboutTheNode else { throw error }
    }
  }

  /// A toolstack changes the medium of a drive by writing `params` (libxl_disk.c, libxl_cdrom_insert).
  private func followMedium(_ nodes: BackendNodes) throws(StoreError) {
    let parameters = try VbdConfiguration.parameters(in: environment.store, directory: nodes.directory) {
      environment.image(atSocket: $0)
    }
    guard let configuration, properties != nil, !isPaused, !commands.isBusy, parameters != refusedMedium
    else {
      return
    }
    do throws(VbdError) {
      let image = try configuration.checkImage(parameters, directory: nodes.directory)
      guard image != configuration.image else { return }
    } catch {
      return refuse(parameters, because: error, nodes)
    }
    changeMedium(to: parameters) { [self] failure in
      if let failure { refuse(parameters, because: failure, nodes) }
    }
  }

  /// The old medium stays, and `params` names it again: a daemon that starts later would look for the other.
  private func refuse(_ parameters: String, because reason: VbdError, _ nodes: BackendNodes) {
    report("the medium could not be changed: \(reason)")
    refusedMedium = parameters
    guard let present = configuration?.image else { return }
    let path = "\(nodes.directory)/params"
    do throws(StoreError) {
      try environment.store.transaction { tree throws(StoreError) in
        guard try tree.read(path) == parameters else { return }
        try tree.write(path, present)
      }
      refusedMedium = nil
    } catch {
      environment.log(.warning, "\(path) could not be set back to \(present): \(error)", about: identity)
    }
  }

  /// Tells the administrator of something that lasts, once for each concern.
  func tellOnce(_ concern: String, _ message: String) {
    guard told[concern] != message else { return }
    told[concern] = message
    environment.log(.warning, message, about: identity)
  }
}
