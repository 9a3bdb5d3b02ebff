/// Another backend that serves a device: two on one ring would destroy what is on it, so that ours steps back.
public struct BackendRival: Equatable, Sendable {
  /// Our node that names the process which serves the device, as its daemon names itself.
  public static let node = "ringback-server"

  /// What that node says; nil for somebody who does not write it.
  public var server: String?

  /// A rival; one that says nothing of itself unless `server` is given.
  public init(server: String? = nil) { self.server = server }
}
