/// What the nodes of a device say at one moment. Always all of them: an event that tells only what changed
/// would let a toolstack's `online=0, state=5` be seen by halves.
public struct BackendObservation: Hashable, Sendable {
  /// Our own `state`; nil when the device's directory is gone. The toolstack writes it too.
  public var own: XenbusState?
  /// The frontend's `state`; nil when it is gone, `.unknown` for what is no state.
  public var frontend: XenbusState?
  /// Our node `online`: false when the toolstack wants no reconnect after the next close.
  public var isOnline: Bool
  /// Hotplug has done its part, so that the device can be used.
  public var isHotplugReady: Bool

  /// The frontend shares other rings than those that are served, whatever its state says.
  public var hasNewKeys = false

  /// Joins the four that every observation has.
  public init(own: XenbusState?, frontend: XenbusState?, isOnline: Bool, isHotplugReady: Bool) {
    self.own = own
    self.frontend = frontend
    self.isOnline = isOnline
    self.isHotplugReady = isHotplugReady
  }
}

/// What happens to a backend device.
public enum BackendEvent: Hashable, Sendable {
  /// The nodes were read, for whatever reason: duplicates and missed steps do no harm.
  case observed(BackendObservation)
  /// The connection asked for is up.
  case connectSucceeded(generation: UInt32)
  /// The connection asked for could not be made; nothing of it is left.
  case connectFailed(generation: UInt32, message: String)
  /// A connection that was up serves no more requests (a broken ring, say). It is still there to be drained.
  case connectionFailed(generation: UInt32, message: String)
  /// The answer to each ``BackendAction/disconnect(generation:)``: no request is in flight, nothing is
  /// mapped.
  case drained(generation: UInt32)
  /// What the frontend changed is taken over: the answer to ``BackendAction/reconfigure(generation:)``.
  case reconfigured(generation: UInt32)
  /// The daemon shuts down: the connection is drained, and the nodes stay for the next daemon to pick up.
  case stop
}

/// What a backend device is to do, in order.
public enum BackendAction: Hashable, Sendable {
  /// Write all features, then `thenState` to our own node if it still holds `from`, in one transaction.
  case publishFeatures(from: XenbusState, thenState: XenbusState)
  /// Read the frontend's keys and connect; answered by `connectSucceeded` or `connectFailed`. `resume` says
  /// that another process may have served this ring before, so that its in-flight table matters.
  case connect(generation: UInt32, resume: Bool)
  /// Take no more requests, let those in flight end, unmap; answered by `drained`, in any case: also when the
  /// connection is not up yet or has failed meanwhile.
  case disconnect(generation: UInt32)
  /// Read again what a frontend may change while connected; answered by `reconfigured` when its queues have
  /// taken it over.
  case reconfigure(generation: UInt32)
  /// Write `to` to our own node, if it still holds `from`; if not, observe again.
  case switchState(from: XenbusState, to: XenbusState)
  /// Tell the administrator: the log and the device's error node.
  case reportError(String)
  /// The device is no more ours: end its watches, drop it. The nodes stay.
  case forget
}
