import RingKit

/// Two backends on one ring would serve neither of their guests.
extension Vif {
  /// True while another backend has the interface. When that one has ended, or the toolstack has made the
  /// device anew, ours begins from the beginning.
  func leavesToRival(_ nodes: BackendNodes) throws(StoreError) -> Bool {
    let own = try nodes.observe(in: environment.store, isHotplugReady: false).own
    if let rival {
      guard own != nil else {
        finish()
        return true
      }
      if environment.rivalOfVifs != nil { return true }
      let isServed = try rival.server.map { server throws(StoreError) in
        try server == serverNode(nodes) && environment.isServing(server)
      }
      guard own == .initialising || isServed == false else { return true }
      environment.log(.information, "the other backend is gone; served here", about: identity)
      beginAnew()
      return false
    }
    guard handshake.own == nil, !handshake.isForgotten else { return false }
    if let reason = environment.rivalOfVifs {
      environment.log(.failure, reason, about: identity)
      rival = BackendRival()
      return true
    }
    guard let ours = environment.serverName, let server = try serverNode(nodes), server != ours,
      environment.isServing(server), own != .initialising
    else { return false }
    yield(to: BackendRival(server: server))
    return true
  }

  func serverNode(_ nodes: BackendNodes) throws(StoreError) -> String? {
    try environment.store.read("\(nodes.directory)/\(BackendRival.node)")
  }

  /// True for a state that only a backend writes, and that we did not write.
  func isForeign(_ own: XenbusState?) -> Bool {
    guard let own, let lastSeen, own != lastSeen else { return false }
    return own == .initWait || own == .initialised || own == .connected || own == .reconfigured
  }

  /// Steps back: what we have shared with the frontend is given up, and no node is written any more.
  func yield(to other: BackendRival) {
    rival = other
    let who = other.server.map { "another ringback (process \($0))" } ?? "another backend"
    environment.log(
      .failure,
      "\(who) serves this interface too and has written its state; it is left to that one. Stop one of the two "
        + "that serve kind \(identity.kind) (`ringback doctor` looks for them), then detach and attach the "
        + "interface", about: identity)
    act(on: .stop)
  }
}
