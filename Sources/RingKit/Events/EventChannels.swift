/// An event channel port of this domain (evtchn_port_t).
@frozen
public struct Port: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  /// The port's number.
  public let rawValue: UInt32
  /// Wraps a number.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// Why an event channel operation failed.
public struct EventChannelError: Error, Equatable, CustomStringConvertible {
  /// What was attempted, with the domain and port concerned.
  public let operation: String
  /// The error number, positive.
  public let errno: Int32

  /// Records a failure.
  public init(operation: String, errno: Int32) {
    self.operation = operation
    self.errno = errno
  }

  /// "operation: message".
  public var description: String { SystemError(call: operation, errno: errno).description }
}

/// Event channels behind one file descriptor, as /dev/xen/evtchn has them: one instance a data thread.
///
/// A port that was reported pending stays masked until ``unmask(_:)``: delaying that is how a guest that
/// kicks without a cause is slowed down (XSA-332's back-off does not reach userspace).
public protocol EventChannels: AnyObject {
  /// Readable when some port is pending.
  var descriptor: Int32 { get }

  /// Binds to `remotePort` of `domain`; the new port is pending at once, as Xen makes it.
  func bind(domain: DomainID, remotePort: Port) throws(EventChannelError) -> Port

  /// Allocates a port that `domain` may bind to: the frontend's side.
  func allocateUnbound(for domain: DomainID) throws(EventChannelError) -> Port

  /// Closes the port; it is never reported again.
  func unbind(_ port: Port)

  /// Signals the other end. A peer that is gone is an error the caller treats as a disconnect, never as
  /// fatal.
  func notify(_ port: Port) throws(EventChannelError)

  /// The next pending port, now masked; nil when there is none. Does not block.
  ///
  /// Ports are taken from the descriptor many at a time, so call this until nil before waiting for the
  /// descriptor again.
  func nextPending() -> Port?

  /// Lets the port be reported again; an event that came meanwhile is reported at once.
  func unmask(_ port: Port)
}
