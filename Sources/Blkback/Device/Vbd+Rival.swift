import RingKit

extension Vbd {
  /// True while another backend has the disk. When that one has ended, or the toolstack has made the device
  /// anew, ours begins from the beginning.
  func leavesToRival(_ nodes: BackendNodes) throws(StoreError) -> Bool {
    guard let rival else { return try findsRival(nodes) }
    guard handshake.isForgotten, !isLettingGo else { return true }
    switch try nodes.observe(in: environment.store, isHotplugReady: false).own {
    case nil:
      _ = leaveRival()
      return true
    case .initialising: break
    default:
      guard let server = rival.server, try server != serverNode(nodes) || !environment.isServing(server)
      else {
        return true
      }
    }
    environment.log(.information, "the other backend is gone; served here", about: identity)
    forgetDescription()
    (handshake, self.rival, lastSeen) = (BackendHandshake(), nil, nil)
    return false
  }

  /// Before the first look: what is there may be another living daemon's.
  private func findsRival(_ nodes: BackendNodes) throws(StoreError) -> Bool {
    guard handshake.own == nil, let ours = environment.serverName, let server = try serverNode(nodes),
      server != ours, environment.isServing(server),
      try nodes.observe(in: environment.store, isHotplugReady: false).own != .initialising
    else { return false }
    yield(to: BackendRival(server: server))
    return true
  }

  private func serverNode(_ nodes: BackendNodes) throws(StoreError) -> String? {
    try environment.store.read("\(nodes.directory)/\(BackendRival.node)")
  }

  /// True for a state that only a backend writes, and that we did not write.
  func isForeign(_ own: XenbusState?) -> Bool {
    guard let own, let lastSeen, own != lastSeen else { return false }
    return own == .initWait || own == .initialised || own == .connected
  }

  /// Steps back: what we have shared with the frontend is given up, and no node is written any more.
  func yield(to other: BackendRival) {
    rival = other
    let who = other.server.map { "another ringback (process \($0))" } ?? "another backend"
    environment.log(
      .failure,
      "\(who) serves this disk too and has written its state; it is left to that one, because two backends would "
        + "destroy what is on it. Stop one of the two that serve kind \(identity.kind) (`ringback doctor` looks "
        + "for them), then detach and attach the disk", about: identity)
    act(on: .stop)
  }

  /// Ends a disk that another backend serves; false when none does.
  func leaveRival() -> Bool {
    guard rival != nil else { return false }
    hasGone = true
    if handshake.isForgotten, !isLettingGo { forget() }
    return true
  }
}
