public import RingKit

/// One entry of the list that a request to add or delete staging grants points to (netif.h, struct
/// xen_netif_gref). As decoded nothing is known of its values.
@frozen
public struct NetGrantEntry: Equatable, Sendable, BitwiseCopyable {
  /// The granted page.
  public var reference: GrantReference
  /// XEN_NETIF_CTRLF_GREF_*: ``readOnlyFlag`` is the only one there is.
  public var flags: UInt16
  /// What became of the entry, a ``NetControlStatus``; written by the backend in answer to a deletion.
  public var status: UInt16

  /// Joins the fields.
  @inlinable
  public init(reference: GrantReference, flags: UInt16 = 0, status: UInt16 = 0) {
    self.reference = reference
    self.flags = flags
    self.status = status
  }

  /// XEN_NETIF_CTRLF_GREF_readonly: the page is granted for reading only.
  @inlinable public static var readOnlyFlag: UInt16 { 1 }
  /// Bytes of an entry.
  @inlinable public static var byteCount: Int { 8 }
  /// Entries that fit into the one page of a list.
  @inlinable public static var maximumCount: Int { pageByteCount / byteCount }

  /// Decodes the 8 bytes of an entry, read as one little-endian number.
  @inlinable
  public init(word: UInt64) {
    reference = GrantReference(rawValue: UInt32(truncatingIfNeeded: word))
    flags = UInt16(truncatingIfNeeded: word &>> 32)
    status = UInt16(truncatingIfNeeded: word &>> 48)
  }

  /// The 8 bytes of the entry as one little-endian number.
  @inlinable
  public var word: UInt64 {
    UInt64(reference.rawValue) | UInt64(flags) &<< 32 | UInt64(status) &<< 48
  }
}
