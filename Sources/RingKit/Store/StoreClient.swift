import CXen
import Glibc
import Synchronization

/// A connection to xenstore over libxenstore: a daemon's unix socket, or /dev/xen/xenbus in a driver domain.
///
/// It belongs to the thread that opened it. Calls wait for the daemon, so it is control plane only.
/// libxenstore of Xen 4.17 sets and restores SIGPIPE's action around each call: the program ignores that
/// signal from its start.
@safe
public final class StoreClient: StoreSession {
  // Sound: opened in init, closed in deinit, used by one thread only.
  private let handle: OpaquePointer
  /// Where the connection goes, for messages.
  public let socketPath: String
  /// Becomes readable when watch events wait; then ``nextWatchEvent()`` is called until it returns nil.
  ///
  /// The loss of the connection does not make it readable: only a call discovers that, so a loop that polls
  /// calls ``nextWatchEvent()`` every few seconds too.
  public let descriptor: Int32

  // libxenstore reads XENSTORED_PATH while it opens, and the environment belongs to the whole process.
  private static let environment = Mutex<Void>(())

  /// Connects: to the daemon's usual place, or to the socket (or device) at `socketPath`.
  ///
  /// A path is handed to libxenstore through XENSTORED_PATH, which is set only while it opens, under a lock
  /// common to all clients. Other threads should not read the environment meanwhile.
  public init(socketPath: String? = nil) throws(StoreError) {
    let (handle, failure) = unsafe Self.environment.withLock { _ in unsafe Self.open(socketPath) }
    let shown = socketPath ?? Self.usualPath
    guard let handle = unsafe handle else { throw .cannotConnect(socket: shown, errno: failure) }
    unsafe self.handle = handle
    self.socketPath = shown
    self.descriptor = unsafe xs_fileno(handle)
    guard descriptor >= 0 else {
      let failure = errno
      unsafe xs_close(handle)
      throw .cannotConnect(socket: shown, errno: failure)
    }
  }

  deinit { unsafe xs_close(handle) }

  private static var usualPath: String {
    // Sound: both return C strings that stay valid while nobody changes the environment, or NULL.
    if let path = unsafe getenv("XENSTORED_PATH") { return unsafe String(cString: path) }
    guard let path = unsafe xs_daemon_socket() else { return "the default socket" }
    return unsafe String(cString: path)
  }

  private static func open(_ socketPath: String?) -> (OpaquePointer?, Int32) {
    guard let socketPath else {
      let handle = unsafe xs_open(0)
      return unsafe (handle, errno)
    }
    // Sound: the C string is copied before the environment changes.
    let previous = unsafe getenv("XENSTORED_PATH").map { unsafe String(cString: $0) }
    unsafe setenv("XENSTORED_PATH", socketPath, 1)
    let handle = unsafe xs_open(0)
    let failure = errno
    if let previous {
      unsafe setenv("XENSTORED_PATH", previous, 1)
    } else {
      unsafe unsetenv("XENSTORED_PATH")
    }
    return unsafe (handle, failure)
  }

  // MARK: The tree, outside of a transaction

  public func read(_ path: String) throws(StoreError) -> String? { try read(path, in: Self.none) }
  public func write(_ path: String, _ value: String) throws(StoreError) {
    try write(path, value, in: Self.none)
  }
  public func makeDirectory(_ path: String) throws(StoreError) { try makeDirectory(path, in: Self.none) }
  public func remove(_ path: String) throws(StoreError) { try remove(path, in: Self.none) }
  public func list(_ path: String) throws(StoreError) -> [String]? { try list(path, in: Self.none) }
  public func permissions(of path: String) throws(StoreError) -> [StorePermission]? {
    try permissions(of: path, in: Self.none)
  }
  public func setPermissions(_ permissions: [StorePermission], of path: String) throws(StoreError) {
    try setPermissions(permissions, of: path, in: Self.none)
  }
  public func exists(_ path: String) throws(StoreError) -> Bool { try exists(path, in: Self.none) }

  /// The directory of `domain`, "/local/domain/<domid>".
  public func domainPath(_ domain: DomainID) throws(StoreError) -> String {
    // Sound: the result is a C string of ours to free.
    guard let path = unsafe xs_get_domain_path(handle, UInt32(domain.rawValue)) else {
      throw failure("domain path", "of domain \(domain)")
    }
    defer { unsafe free(path) }
    return unsafe String(cString: path)
  }

  // MARK: Watches

  public func watch(_ path: String, token: String) throws(StoreError) {
    try requireCString(path, token)
    guard unsafe xs_watch(handle, path, token) else { throw failure("watch", path) }
  }

  public func unwatch(_ path: String, token: String) throws(StoreError) {
    try requireCString(path, token)
    guard unsafe xs_unwatch(handle, path, token) || errno == ENOENT else { throw failure("unwatch", path) }
  }

  public func nextWatchEvent() throws(StoreError) -> WatchEvent? {
    // Sound: the result holds the C strings of path and token in one allocation of ours to free.
    guard let event = unsafe xs_check_watch(handle) else {
      // With the connection gone it says EINVAL; memory may also be short.
      guard errno == EAGAIN else { throw .connectionLost(operation: "watch event") }
      return nil
    }
    defer { unsafe free(event) }
    guard let path = unsafe event[0], let token = unsafe event[1] else { return nil }
    return unsafe WatchEvent(path: String(cString: path), token: String(cString: token))
  }

  // MARK: Transactions

  public func transaction<Result>(
    attempts: Int, _ body: (any StoreAccess) throws(StoreError) -> Result
  ) throws(StoreError) -> Result {
    precondition(attempts > 0)
    for attempt in 1...attempts {
      let number = unsafe xs_transaction_start(handle)
      guard number != Self.none else { throw failure("begin a transaction", "") }
      let transaction = StoreTransaction(client: self, number: number)
      let result: Result
      do {
        result = try body(transaction)
      } catch {
        transaction.end()
        // Sound: the flag only says that the changes are dropped.
        _ = unsafe xs_transaction_end(handle, number, true)
        // Some daemons notice a conflict before the end.
        guard case .refused(_, _, EAGAIN) = error else { throw error }
        pause(after: attempt)
        continue
      }
      transaction.end()
      if unsafe xs_transaction_end(handle, number, false) { return result }
      guard errno == EAGAIN else { throw failure("commit a transaction", "") }
      pause(after: attempt)
    }
    throw .conflicts(attempts: attempts)
  }

  /// Steps back for up to 10 ms, by chance, once the first attempts have failed: two that conflict in lock
  /// step would do so for ever.
  private func pause(after attempt: Int) {
    guard attempt >= 4 else { return }
    usleep(UInt32.random(in: 0...10_000))
  }

  // MARK: The verbs, in a transaction or not

  static var none: xs_transaction_t { 0 }
  /// Bytes of the longest value (xs_wire.h, XENSTORE_PAYLOAD_MAX).
  private static var maximumByteCount: Int { Int(XENSTORE_PAYLOAD_MAX) }

  func read(_ path: String, in transaction: xs_transaction_t) throws(StoreError) -> String? {
    try requireCString(path)
    var length: UInt32 = 0
    // Sound: the result is `length` bytes of ours to free.
    guard let value = unsafe xs_read(handle, transaction, path, &length) else {
      if errno == ENOENT { return nil }
      throw failure("read", path)
    }
    defer { unsafe free(value) }
    guard Int(length) <= Self.maximumByteCount else { throw .tooLong(path: path, byteCount: Int(length)) }
    let bytes = unsafe UnsafeRawBufferPointer(start: value, count: Int(length))
    guard unsafe !bytes.contains(0), let text = unsafe String(validating: bytes, as: UTF8.self) else {
      throw .notText(path: path)
    }
    return text
  }

  func write(_ path: String, _ value: String, in transaction: xs_transaction_t) throws(StoreError) {
    try requireCString(path, value)
    var value = value
    guard value.utf8.count <= Self.maximumByteCount else {
      throw .tooLong(path: path, byteCount: value.utf8.count)
    }
    // Sound: libxenstore only reads `count` bytes during the call.
    let done = value.withUTF8 { unsafe xs_write(handle, transaction, path, $0.baseAddress, UInt32($0.count)) }
    guard done else { throw failure("write", path) }
  }

  func makeDirectory(_ path: String, in transaction: xs_transaction_t) throws(StoreError) {
    try requireCString(path)
    guard unsafe xs_mkdir(handle, transaction, path) else { throw failure("make directory", path) }
  }

  func remove(_ path: String, in transaction: xs_transaction_t) throws(StoreError) {
    try requireCString(path)
    guard unsafe xs_rm(handle, transaction, path) || errno == ENOENT else { throw failure("remove", path) }
  }

  func list(_ path: String, in transaction: xs_transaction_t) throws(StoreError) -> [String]? {
    try requireCString(path)
    var count: UInt32 = 0
    // Sound: the result is an array of `count` C strings in one allocation of ours to free.
    guard let names = unsafe xs_directory(handle, transaction, path, &count) else {
      if errno == ENOENT { return nil }
      throw failure("list", path)
    }
    defer { unsafe free(names) }
    var result: [String] = []
    for index in 0..<Int(count) {
      guard let name = unsafe names[index] else { continue }
      unsafe result.append(String(cString: name))
    }
    return result
  }

  func permissions(
    of path: String, in transaction: xs_transaction_t
  ) throws(StoreError) -> [StorePermission]? {
    try requireCString(path)
    var count: UInt32 = 0
    // Sound: the result is an array of `count` entries of ours to free.
    guard let entries = unsafe xs_get_permissions(handle, transaction, path, &count) else {
      if errno == ENOENT { return nil }
      throw failure("get the permissions of", path)
    }
    defer { unsafe free(entries) }
    var result: [StorePermission] = []
    for index in 0..<Int(count) {
      let entry = unsafe entries[index]
      guard let domain = UInt16(exactly: entry.id) else {
        throw .bad(path, String(entry.id), expected: "permissions for domain numbers")
      }
      result.append(
        StorePermission(
          domain: DomainID(rawValue: domain), canRead: entry.perms & UInt32(XS_PERM_READ) != 0,
          canWrite: entry.perms & UInt32(XS_PERM_WRITE) != 0))
    }
    return result
  }

  func setPermissions(
    _ permissions: [StorePermission], of path: String, in transaction: xs_transaction_t
  ) throws(StoreError) {
    precondition(!permissions.isEmpty, "the first entry names the owner")
    try requireCString(path)
    var entries = permissions.map { entry in
      xs_permissions(
        id: UInt32(entry.domain.rawValue),
        perms: UInt32((entry.canRead ? XS_PERM_READ : 0) | (entry.canWrite ? XS_PERM_WRITE : 0)))
    }
    // Sound: the array is only read, during the call.
    guard unsafe xs_set_permissions(handle, transaction, path, &entries, UInt32(entries.count)) else {
      throw failure("set the permissions of", path)
    }
  }

  func exists(_ path: String, in transaction: xs_transaction_t) throws(StoreError) -> Bool {
    try requireCString(path)
    var length: UInt32 = 0
    // Sound: the result is ours to free.
    guard let value = unsafe xs_read(handle, transaction, path, &length) else {
      if errno == ENOENT { return false }
      throw failure("read", path)
    }
    unsafe free(value)
    return true
  }

  /// libxenstore takes C strings: with a NUL inside, another node would be meant.
  private func requireCString(_ path: String, _ other: String = "") throws(StoreError) {
    guard !path.utf8.contains(0), !other.utf8.contains(0) else { throw .notText(path: path) }
  }

  /// Tells a refusal from a lost connection, by errno as the failed call left it.
  private func failure(_ operation: String, _ path: String) -> StoreError {
    let number = errno
    switch number {
    case EBADF, EPIPE, ECONNRESET:
      return .connectionLost(operation: operation)
    case EINVAL, EIO:
      // The daemon says these too, but so does libxenstore when an answer is cut off. Then it has closed its
      // descriptor, and any further call tells.
      var length: UInt32 = 0
      // Sound: the result is ours to free.
      if let value = unsafe xs_read(handle, Self.none, "domid", &length) {
        unsafe free(value)
      } else if errno == EBADF {
        return .connectionLost(operation: operation)
      }
    default:
      break
    }
    return .refused(operation: operation, path: path, errno: number)
  }
}
