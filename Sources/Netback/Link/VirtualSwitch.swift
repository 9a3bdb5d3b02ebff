import RingKit

/// A switch of the daemon's own, as the control thread sees it: interfaces whose node `link` names it are joined
/// without a TAP. It is there as long as one of them is.
public final class VirtualSwitch {
  /// Its name.
  public let name: String
  let fabric = SwitchFabric(seed: .random(in: .min ... .max))
  private var ports = [Bool](repeating: false, count: SwitchTable.portLimit)
  private var thread: Int?

  /// A switch without ports.
  public init(name: String) { self.name = name }

  /// Interfaces at the switch.
  public var portCount: Int { ports.count { $0 } }

  func claimPort() -> Int? {
    guard let free = ports.firstIndex(of: false) else { return nil }
    ports[free] = true
    return free
  }

  func releasePort(_ number: Int) { ports[number] = false }

  func thread(claim: () -> Int) -> Int {
    let number = thread ?? claim()
    thread = number
    return number
  }
}

/// An interface's port of a switch.
public final class SwitchLink: VifLink {
  /// The switch.
  public let virtualSwitch: VirtualSwitch
  private var port: Int?
  private let address: EthernetAddress?

  /// Takes a port. Throws when the switch has as many as it can.
  public init(_ configuration: VifConfiguration, at virtualSwitch: VirtualSwitch) throws(VifError) {
    self.virtualSwitch = virtualSwitch
    address = configuration.address
    guard let port = virtualSwitch.claimPort() else {
      throw VifError(
        "switch \(virtualSwitch.name) has \(SwitchTable.portLimit) interfaces, and no room for another; give it "
          + "another switch, or a TAP")
    }
    self.port = port
  }

  /// "switch:lan", as the node says it.
  public var name: String { "switch:\(virtualSwitch.name)" }

  /// Gives each queue its place at the port.
  public func open(queueCount: Int, offloads: NetOffloads) throws(VifError) -> [NetLinkQueue] {
    guard let port else { throw VifError("\(name): the port was given up") }
    return (0..<queueCount).map {
      .port(
        SwitchPort(
          fabric: virtualSwitch.fabric, number: port, queue: $0, queueCount: queueCount, address: address))
    }
  }

  /// The queues have left by themselves, each on its thread.
  public func close() {}

  /// There is no other side that could be told: what goes to a port without a carrier is dropped before it.
  public func setCarrier(_ isUp: Bool) {}

  /// The longest packet, of whatever a guest sends.
  public var frameByteCount: Int { NetLimits.packetByteCount }

  /// Nobody else changes anything.
  public func refresh() -> String? { nil }

  /// The next daemon makes a switch of its own.
  public func leave() { remove() }

  /// Gives the port up.
  public func remove() {
    if let port { virtualSwitch.releasePort(port) }
    port = nil
  }

  /// All queues of all ports are on one thread.
  public func commonThread(claim: () -> Int) -> Int? { virtualSwitch.thread(claim: claim) }
}
