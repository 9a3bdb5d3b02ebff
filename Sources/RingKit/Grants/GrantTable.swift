/// A domain's number (domid_t): 0...0x7FEF for ordinary domains.
@frozen
public struct DomainID: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The number.
  public let rawValue: UInt16
  /// Wraps a number.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// The number in decimal, as xenstore paths spell it.
  public var description: String { String(rawValue) }
}

/// A grant reference (grant_ref_t): an index into the granting domain's grant table. Chosen by the guest; any
/// value may come.
@frozen
public struct GrantReference: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  /// The index.
  public let rawValue: UInt32
  /// Wraps an index.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// What a mapping may do with the granted pages.
public enum GrantAccess: Sendable {
  /// Only read (GNTMAP_readonly).
  case readOnly
  /// Read and write.
  case readWrite
}

/// Why a grant operation as a whole failed.
public struct GrantError: Error, Equatable, CustomStringConvertible {
  /// What was attempted, with the domain and references concerned.
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

/// The backend's side of grants: pages that other domains granted to this one.
///
/// One instance belongs to one data thread (or to control work), which alone calls it.
public protocol GrantTable: AnyObject {
  /// Maps pages of `domain`, consecutive in our address space and in the order of `references`. All or
  /// nothing: when one cannot be mapped, none stays mapped. The mapping ends with the returned object.
  func map(
    _ references: [GrantReference], of domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> MappedPages

  /// Does all copies of the batch in as few system calls as possible, and sets each segment's status.
  /// Statuses start as failed, so whatever the host does not report stays failed (XSA-226's class).
  func copy(_ batch: inout GrantCopyBatch)
}

/// Pages of this domain shared with another one: the frontend's side.
public struct SharedPages: Sendable {
  /// Our own mapping of the pages; the grants end with it.
  public let pages: MappedPages
  /// One reference for each page, in order.
  public let references: [GrantReference]

  /// Joins a mapping and its references.
  public init(pages: MappedPages, references: [GrantReference]) {
    self.pages = pages
    self.references = references
  }
}

/// The frontend's side of grants: sharing our own pages with `domain`.
public protocol GrantSharing: AnyObject {
  /// Allocates `pageCount` zeroed pages and grants each of them to `domain`.
  func share(pageCount: Int, with domain: DomainID, access: GrantAccess) throws(GrantError) -> SharedPages
}
