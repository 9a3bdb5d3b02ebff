/// What a backend or frontend needs from the machine below it: the seam between Ringback and its hosts (Xen,
/// Loopback).
///
/// Each call opens a handle of its own, because a handle belongs to one thread.
public protocol Hypervisor: Sendable {
  /// "xen" or "loopback", for messages.
  var name: String { get }
  /// A grant table handle of this domain.
  func openGrantTable() throws(HostError) -> any GrantTable
  /// A handle to share this domain's pages.
  func openGrantSharing() throws(HostError) -> any GrantSharing
  /// An event channel handle.
  func openEventChannels() throws(HostError) -> any EventChannels
  /// A connection to xenstore.
  func openStore() throws(HostError) -> StoreClient
}

/// Why a host's facility could not be opened, and what to do.
public struct HostError: Error, Equatable, CustomStringConvertible {
  /// What failed, where, and what the administrator can do.
  public let description: String
  /// Wraps a message.
  public init(_ description: String) { self.description = description }
}
