/// Where one end of a split device stands (xen/io/xenbus.h, enum xenbus_state; node `state` of either end).
public enum XenbusState: UInt8, Sendable, CaseIterable, CustomStringConvertible {
  /// 0: also what Linux takes for an absent node.
  case unknown = 0
  /// 1: the toolstack made the device, or the frontend starts anew.
  case initialising = 1
  /// 2: the backend has published its features and waits for the frontend and for hotplug.
  case initWait = 2
  /// 3: the frontend has published its rings and waits for the backend.
  case initialised = 3
  /// 4: in use.
  case connected = 4
  /// 5: the device is about to go.
  case closing = 5
  /// 6: nothing is shared any more.
  case closed = 6
  /// 7: the frontend changes something while connected.
  case reconfiguring = 7
  /// 8: the backend has taken the change over.
  case reconfigured = 8

  /// Parses a node's value: a whole decimal number from 0 to 8.
  public init?(text: String) {
    guard let number = StoreValue.decimal(text, in: 0...Self.reconfigured.rawValue) else { return nil }
    self.init(rawValue: number)
  }

  /// The value as it is written into a node.
  public var text: String { String(rawValue) }

  /// The header's name, for messages.
  public var description: String {
    switch self {
    case .unknown: "Unknown"
    case .initialising: "Initialising"
    case .initWait: "InitWait"
    case .initialised: "Initialised"
    case .connected: "Connected"
    case .closing: "Closing"
    case .closed: "Closed"
    case .reconfiguring: "Reconfiguring"
    case .reconfigured: "Reconfigured"
    }
  }
}
