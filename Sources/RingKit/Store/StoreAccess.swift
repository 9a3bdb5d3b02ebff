/// The verbs on xenstore's tree that work alike inside and outside of a transaction.
///
/// Control plane only: device code is written once against `any StoreAccess`. Paths that begin with "/" are
/// absolute, others lie under /local/domain/<own domain>/.
public protocol StoreAccess {
  /// A node's value, or nil when there is no such node. Values longer than 4096 bytes or which are not UTF-8
  /// without NUL throw: a guest writes any bytes into its own nodes.
  func read(_ path: String) throws(StoreError) -> String?

  /// Sets a node's value, creating it and its parents.
  func write(_ path: String, _ value: String) throws(StoreError)

  /// Creates an empty node and its parents; one that is there already stays as it is.
  func makeDirectory(_ path: String) throws(StoreError)

  /// Removes a node with everything below it; one that is not there is fine.
  func remove(_ path: String) throws(StoreError)

  /// The names of a node's children, or nil when there is no such node. Only for trees that guests cannot
  /// write: a long list is fetched in parts, and begun anew as often as it changes meanwhile.
  func list(_ path: String) throws(StoreError) -> [String]?

  /// Who may use a node, or nil when there is no such node. The first entry is the owner, who may always do
  /// everything; its rights are those of every domain that is not listed.
  func permissions(of path: String) throws(StoreError) -> [StorePermission]?

  /// Replaces a node's permissions; see ``permissions(of:)`` for the order.
  func setPermissions(_ permissions: [StorePermission], of path: String) throws(StoreError)

  /// True when there is such a node.
  func exists(_ path: String) throws(StoreError) -> Bool
}

/// A connection to xenstore: the tree, transactions and watches.
public protocol StoreSession: StoreAccess {
  /// Runs `body` in a transaction and commits it; with a conflicting change meanwhile it runs again, at most
  /// `attempts` times. An error from `body` abandons the transaction. `body` must do no other work than on
  /// its argument: it may run often, and others wait for it.
  func transaction<Result>(
    attempts: Int, _ body: (any StoreAccess) throws(StoreError) -> Result
  ) throws(StoreError) -> Result

  /// Watches a node and everything below it. An event comes at once, for the registration itself.
  func watch(_ path: String, token: String) throws(StoreError)

  /// Ends a watch. Events that are under way may still come; an unknown watch is fine.
  func unwatch(_ path: String, token: String) throws(StoreError)

  /// The next watch event, or nil when there is none now. Does not block.
  func nextWatchEvent() throws(StoreError) -> WatchEvent?
}

extension StoreSession {
  /// Attempts of a transaction before it gives up (the advice after XSA-326: bounded).
  public static var transactionAttempts: Int { 32 }

  /// ``transaction(attempts:_:)`` with the usual bound.
  public func transaction<Result>(
    _ body: (any StoreAccess) throws(StoreError) -> Result
  ) throws(StoreError) -> Result {
    try transaction(attempts: Self.transactionAttempts, body)
  }

  /// The number of the domain this connection belongs to (node `domid`).
  public func ownDomain() throws(StoreError) -> DomainID {
    DomainID(rawValue: try decimal("domid", in: 0...DomainID.highestOrdinary.rawValue))
  }
}

/// What a domain may do with a node.
public struct StorePermission: Hashable, Sendable {
  /// The domain.
  public var domain: DomainID
  /// It may read the value, the children's names and the permissions.
  public var canRead: Bool
  /// It may write the value and create children.
  public var canWrite: Bool

  /// Grants `domain` the given rights.
  public init(domain: DomainID, canRead: Bool, canWrite: Bool) {
    self.domain = domain
    self.canRead = canRead
    self.canWrite = canWrite
  }
}

/// A change below a watched node. Events coalesce and come spuriously: read the current values, always.
public struct WatchEvent: Hashable, Sendable {
  /// The node that changed, spelled like the watch: absolute for an absolute one.
  public var path: String
  /// The token the watch was registered with.
  public var token: String

  /// Joins a path and a token.
  public init(path: String, token: String) {
    self.path = path
    self.token = token
  }
}

extension DomainID {
  /// The highest number an ordinary domain can have (xen.h, DOMID_FIRST_RESERVED - 1).
  public static var highestOrdinary: DomainID { DomainID(rawValue: 0x7FEF) }
}
