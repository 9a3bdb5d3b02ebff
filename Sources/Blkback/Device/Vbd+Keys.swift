import RingKit

/// What the frontend shares.
extension Vbd {
  /// True when the frontend of a living connection has put other rings or ports in the place of those that
  /// are served. A guest that resumes after a checkpoint does so without ever closing (xen-blkfront.c,
  /// blkfront_resume), and its state may be Connected again before anybody has read Initialised.
  func frontendHasNewKeys(_ frontend: XenbusState?, _ nodes: BackendNodes) -> Bool {
    guard frontend == .initialised || frontend == .connected, case .connected = handshake.link,
      let connection,
      let properties,
      let keys = try? FrontendParameters.read(
        from: environment.store, frontendPath: nodes.frontendDirectory, offer: offer, for: properties)
    else { return false }
    return keys.queues != connection.frontendQueues
  }
}
