/// What a server says of an export when a connection is made.
public struct NBDExport: Equatable, Sendable {
  /// Size in bytes.
  public var byteCount: UInt64
  /// Offsets and lengths of requests are multiples of this; 1 where the server says nothing.
  public var minimumBlockByteCount: Int
  /// The block that the server likes best; 0 where it says nothing.
  public var preferredBlockByteCount: Int
  /// Longest read or write in bytes: 32 MiB where the server says nothing.
  public var maximumByteCount: Int
  /// True when nothing can be written.
  public var isReadOnly: Bool
  /// True when the server has a flush (NBD_FLAG_SEND_FLUSH).
  public var canFlush: Bool
  /// True when a write can be durable by itself (NBD_FLAG_SEND_FUA).
  public var canForceUnitAccess: Bool
  /// True when ranges can be given back (NBD_FLAG_SEND_TRIM).
  public var canTrim: Bool
  /// True when ranges can be made to read as zeros (NBD_FLAG_SEND_WRITE_ZEROES).
  public var canZero: Bool
  /// True when a flush on one connection covers all connections (NBD_FLAG_CAN_MULTI_CONN).
  public var canMultiConnect: Bool
  /// True when the connection is encrypted.
  public var isEncrypted: Bool

  /// Describes an export.
  public init(
    byteCount: UInt64, minimumBlockByteCount: Int = 1, preferredBlockByteCount: Int = 0,
    maximumByteCount: Int = 32 << 20, isReadOnly: Bool = false, canFlush: Bool = true,
    canForceUnitAccess: Bool = true, canTrim: Bool = true, canZero: Bool = true,
    canMultiConnect: Bool = false, isEncrypted: Bool = false
  ) {
    self.byteCount = byteCount
    self.minimumBlockByteCount = minimumBlockByteCount
    self.preferredBlockByteCount = preferredBlockByteCount
    self.maximumByteCount = maximumByteCount
    self.isReadOnly = isReadOnly
    self.canFlush = canFlush
    self.canForceUnitAccess = canForceUnitAccess
    self.canTrim = canTrim
    self.canZero = canZero
    self.canMultiConnect = canMultiConnect
    self.isEncrypted = isEncrypted
  }
}
