/// Flags of a transmit request, frontend to backend (netif.h, NETTXF_*). Bits 0 and 1 mean the opposite of
/// those in ``NetRxFlags``.
@frozen
public struct NetTxFlags: OptionSet, Sendable, BitwiseCopyable {
  /// The 16-bit field.
  public let rawValue: UInt16
  /// Wraps the field.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// NETTXF_csum_blank: the checksum of the protocol is to be filled in.
  @inlinable public static var checksumBlank: NetTxFlags { NetTxFlags(rawValue: 1) }
  /// NETTXF_data_validated: the packet's data has been checked.
  @inlinable public static var dataValidated: NetTxFlags { NetTxFlags(rawValue: 2) }
  /// NETTXF_more_data: the packet goes on in the next request.
  @inlinable public static var moreData: NetTxFlags { NetTxFlags(rawValue: 4) }
  /// NETTXF_extra_info: extra infos follow this, the first, request.
  @inlinable public static var extraInfo: NetTxFlags { NetTxFlags(rawValue: 8) }
}

/// Flags of a receive response, backend to frontend (netif.h, NETRXF_*).
@frozen
public struct NetRxFlags: OptionSet, Sendable, BitwiseCopyable {
  /// The 16-bit field.
  public let rawValue: UInt16
  /// Wraps the field.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// NETRXF_data_validated: the packet's checksum needs no check.
  @inlinable public static var dataValidated: NetRxFlags { NetRxFlags(rawValue: 1) }
  /// NETRXF_csum_blank: the checksum of the protocol is to be filled in before it leaves the machine.
  @inlinable public static var checksumBlank: NetRxFlags { NetRxFlags(rawValue: 2) }
  /// NETRXF_more_data: the packet goes on in the next response.
  @inlinable public static var moreData: NetRxFlags { NetRxFlags(rawValue: 4) }
  /// NETRXF_extra_info: extra infos follow this, the first, response.
  @inlinable public static var extraInfo: NetRxFlags { NetRxFlags(rawValue: 8) }
  /// NETRXF_gso_prefix, retired: never sent.
  @inlinable public static var segmentationPrefix: NetRxFlags { NetRxFlags(rawValue: 16) }
}
