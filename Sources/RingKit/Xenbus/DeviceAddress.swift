/// Which backend device: the last three components of backend/<kind>/<domid>/<devid>.
public struct DeviceAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The kind of backend: "vbd", "vbd3", "vif".
  public var kind: String
  /// The frontend's domain.
  public var domain: DomainID
  /// The device's number: virtual-device of a disk, handle of an interface.
  public var device: UInt32

  /// Joins the three.
  public init(kind: String, domain: DomainID, device: UInt32) {
    self.kind = kind
    self.domain = domain
    self.device = device
  }

  /// Parses the names of the two directories as toolstacks spell them: decimal without leading zeros, so that
  /// no device has two addresses.
  public init?(kind: String, domain: String, device: String) {
    guard let domain = Self.domain(named: domain), let number = Self.number(device, in: 0...UInt32.max) else {
      return nil
    }
    self.init(kind: kind, domain: domain, device: number)
  }

  /// The domain that a directory is named for.
  static func domain(named name: String) -> DomainID? {
    number(name, in: 0...DomainID.highestOrdinary.rawValue).map { DomainID(rawValue: $0) }
  }

  private static func number<Number: FixedWidthInteger>(
    _ name: String, in range: ClosedRange<Number>
  ) -> Number? {
    guard let number = StoreValue.decimal(name, in: range), String(number) == name else { return nil }
    return number
  }

  /// "<kind>/<domid>/<devid>".
  public var description: String { "\(kind)/\(domain)/\(device)" }

  /// By kind, then domain, then number.
  public static func < (left: DeviceAddress, right: DeviceAddress) -> Bool {
    (left.kind, left.domain.rawValue, left.device) < (right.kind, right.domain.rawValue, right.device)
  }
}
