public import RingKit

/// Where an interface's packets go to and come from, as the control thread sees it. It lives as long as the
/// device's directory, however often a frontend connects: a bridge would forget a port that goes and comes.
public protocol VifLink: AnyObject {
  /// What it is, for the log: "TAP vif1.0", "switch:lan".
  var name: String { get }

  /// Makes what a frontend with so many queues needs, in their order. ``close()`` follows, also after a
  /// failure.
  func open(queueCount: Int, offloads: NetOffloads) throws(VifError) -> [NetLinkQueue]

  /// Lets go of all of it: nothing uses it any more, and the other side is told that nobody is there. Harmless
  /// when nothing is open.
  func close()

  /// Tells the other side whether anybody takes its packets.
  func setCarrier(_ isUp: Bool)

  /// The largest frame that the other side sends to what is open, in bytes.
  var frameByteCount: Int { get }

  /// Looks again at what others may have changed: name, MTU, up or down. Gives what is worth telling.
  func refresh() -> String?

  /// The daemon stops: what others see of the link stays for the next one.
  func leave()

  /// The device is gone, and the link goes with it.
  func remove()

  /// The number of the data thread that all queues of a connection have to be on, which is claimed with `claim`
  /// when that is not settled yet; nil where each may be on another.
  func commonThread(claim: () -> Int) -> Int?
}

extension VifLink {
  /// Each queue may be on a thread of its own.
  public func commonThread(claim: () -> Int) -> Int? { nil }
}

/// A queue's own end of a link.
public enum NetLinkQueue: Sendable {
  /// A queue of a TAP.
  case tap(TapQueue)
  /// A queue of a port of a switch.
  case port(SwitchPort)
}

extension NetLinkQueue {
  /// The place at a switch, if it is one.
  var port: SwitchPort? {
    guard case .port(let port) = self else { return nil }
    return port
  }
}
