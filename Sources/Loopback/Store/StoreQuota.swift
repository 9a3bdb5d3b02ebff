/// What one unprivileged domain may use of the store. Domain 0 is exempt, as in C xenstored.
///
/// The defaults are those of xenstored (`tools/xenstored/domain.c`, `quotas`); each is the most
/// that is granted.
public struct StoreQuota: Sendable, Equatable {
  /// Nodes which the domain owns.
  public var nodes = 1000
  /// Watches of all the domain's connections together.
  public var watches = 128
  /// Bytes of one node: value, child names, 8 per permission and 16 of overhead. Must stay *below* this.
  public var nodeSizeBytes = 2048
  /// Open transactions of all the domain's connections together.
  public var transactions = 10
  /// Nodes which one transaction may read or write.
  public var transactionNodes = 1024
  /// Answered but undelivered requests after which a connection's input waits.
  public var outstandingRequests = 20
  /// Entries in one permission list.
  public var permissionsPerNode = 5
  /// Bytes of a path, counted without a leading `/local/domain/<domid>/`.
  public var pathBytes = 2048
  /// Bytes of undelivered output on one connection after which further watch events are lost.
  public var outputBytes = 1 << 20

  /// The defaults of C xenstored.
  public init() {}
}
