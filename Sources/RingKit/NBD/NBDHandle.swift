import CNBD
import Glibc

/// One connection to a server of network block devices, through libnbd, without ever waiting: whoever owns it
/// polls ``descriptor`` and says what became possible.
///
/// It may be handed from the thread that connects it to the one that uses it. The memory that a command names
/// stays in place until the command ended or this object is gone.
@safe
public final class NBDHandle: @unchecked Sendable {
  // Sound: libnbd takes the handle's own lock in every call, and it is closed only in deinit.
  private let handle: OpaquePointer

  /// A handle that is not connected.
  public init() throws(NBDError) {
    guard let created = unsafe nbd_create() else { throw NBDError.last() }
    unsafe handle = created
  }

  deinit { unsafe nbd_close(handle) }

  // MARK: Connecting

  /// Begins to connect. A host's name is looked up before this returns, which can take long: not for data
  /// threads.
  public func connect(to address: NBDAddress) throws(NBDError) {
    let result: Int32
    switch address {
    case .uri(let uri):
      // Certificates and keys that the administrator names are what a URI is trusted with.
      unsafe nbd_set_uri_allow_local_file(handle, true)
      result = unsafe nbd_aio_connect_uri(handle, uri)
    case .unix(let path, let export):
      unsafe nbd_set_export_name(handle, export)
      result = unsafe nbd_aio_connect_unix(handle, path)
    case .tcp(let host, let port, let export):
      unsafe nbd_set_export_name(handle, export)
      result = unsafe nbd_aio_connect_tcp(handle, host, port)
    }
    guard result == 0 else { throw NBDError.last() }
  }

  /// True when commands can be given.
  public var isReady: Bool { unsafe nbd_aio_is_ready(handle) == 1 || nbd_aio_is_processing(handle) == 1 }

  /// True when nothing can come of this connection any more.
  public var isDead: Bool { unsafe nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1 }

  /// What the server says of the export; for a handle that is ready.
  public func export() throws(NBDError) -> NBDExport {
    let size = unsafe nbd_get_size(handle)
    guard size >= 0 else { throw NBDError.last() }
    let minimum = unsafe nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM)
    let preferred = unsafe nbd_get_block_size(handle, LIBNBD_SIZE_PREFERRED)
    let maximum = unsafe nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM)
    // 32 MiB is what every server takes by the protocol's rule; libnbd itself refuses more than 64 MiB.
    let longest = maximum > 0 ? min(maximum, 32 << 20) : 32 << 20
    return unsafe NBDExport(
      byteCount: UInt64(size), minimumBlockByteCount: Int(max(1, min(minimum, 1 << 20))),
      preferredBlockByteCount: Int(max(0, min(preferred, 1 << 30))), maximumByteCount: Int(longest),
      isReadOnly: nbd_is_read_only(handle) == 1, canFlush: nbd_can_flush(handle) == 1,
      canForceUnitAccess: nbd_can_fua(handle) == 1, canTrim: nbd_can_trim(handle) == 1,
      canZero: nbd_can_zero(handle) == 1,
      canMultiConnect: nbd_can_multi_conn(handle) == 1, isEncrypted: nbd_get_tls_negotiated(handle) == 1)
  }

  /// Has the kernel find out within about half a minute that a server's machine is gone; does nothing on unix
  /// sockets.
  public func watchPeer() {
    var (one, idle, interval, count): (Int32, Int32, Int32, Int32) = (1, 10, 5, 4)
    var silence: UInt32 = 30_000
    let size = socklen_t(MemoryLayout<Int32>.size)
    let descriptor = descriptor
    // Sound: each call reads one local integer of the size given.
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &one, size)
    unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, &idle, size)
    unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_KEEPINTVL, &interval, size)
    unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_KEEPCNT, &count, size)
    unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, &silence, size)
  }

  // MARK: Moving on

  /// The socket; -1 when there is none.
  public var descriptor: Int32 { unsafe nbd_aio_get_fd(handle) }

  /// Whether to wait for the socket to become readable.
  public var waitsForReading: Bool {
    unsafe nbd_aio_get_direction(handle) & UInt32(LIBNBD_AIO_DIRECTION_READ) != 0
  }

  /// Whether to wait for the socket to become writable.
  public var waitsForWriting: Bool {
    unsafe nbd_aio_get_direction(handle) & UInt32(LIBNBD_AIO_DIRECTION_WRITE) != 0
  }

  /// True when the socket can be read (or is broken) this moment.
  public var isReadable: Bool {
    var wanted = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // Sound: one local structure, filled during the call.
    return unsafe poll(&wanted, 1, 0) > 0
  }

  /// Tells that the socket is readable (or broken), which it has to be: libnbd waits for a reply from then on,
  /// and sends nothing before that came. Throws why the connection is lost.
  public func becameReadable() throws(NBDError) {
    if unsafe nbd_aio_notify_read(handle) != 0 { throw NBDError.last() }
  }

  /// Tells that the socket is writable (or broken). Throws why the connection is lost.
  public func becameWritable() throws(NBDError) {
    if unsafe nbd_aio_notify_write(handle) != 0 { throw NBDError.last() }
  }

  /// Ends all traffic: polls of the socket end, and the server sees the connection closed.
  public func shutDown() { _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR)) }

  // MARK: Commands

  /// Begins reading. Gives the command's cookie, or a negative error number when it was refused.
  public func read(_ segment: IOSegment, at offset: UInt64) -> Int64 {
    unsafe begun(
      nbd_aio_pread(handle, segment.pointer, Int(segment.length), offset, nbd_completion_callback(), 0))
  }

  /// Begins writing; with `durably` it ends on stable storage.
  public func write(_ segment: IOSegment, at offset: UInt64, durably: Bool) -> Int64 {
    let flags = durably ? UInt32(LIBNBD_CMD_FLAG_FUA) : 0
    return unsafe begun(
      nbd_aio_pwrite(handle, segment.pointer, Int(segment.length), offset, nbd_completion_callback(), flags))
  }

  /// Begins a flush of all that completed before.
  public func flush() -> Int64 { unsafe begun(nbd_aio_flush(handle, nbd_completion_callback(), 0)) }

  /// Begins giving back a range of at most 4 GiB - 1 bytes.
  public func trim(at offset: UInt64, byteCount: UInt64) -> Int64 {
    unsafe begun(nbd_aio_trim(handle, byteCount, offset, nbd_completion_callback(), 0))
  }

  /// Begins making a range read as zeros, of at most 4 GiB - 1 bytes; the server may give its space back.
  public func zero(at offset: UInt64, byteCount: UInt64, durably: Bool) -> Int64 {
    let flags = durably ? UInt32(LIBNBD_CMD_FLAG_FUA) : 0
    return unsafe begun(nbd_aio_zero(handle, byteCount, offset, nbd_completion_callback(), flags))
  }

  private func begun(_ cookie: Int64) -> Int64 { cookie > 0 ? cookie : Int64(-NBDError.lastErrno()) }

  /// The cookie of a command that ended and was not taken note of; nil when there is none.
  public func nextEnded() -> UInt64? {
    let cookie = unsafe nbd_aio_peek_command_completed(handle)
    return cookie > 0 ? UInt64(cookie) : nil
  }

  /// How the command ended.
  public func end(of cookie: UInt64) -> NBDEnd {
    if unsafe nbd_aio_command_completed(handle, cookie) == 1 { return .done }
    let code = NBDError.lastErrno()
    // libnbd ends what was under way on a broken connection with ENOTCONN, which no server can send; a server
    // that is about to stop sends ESHUTDOWN (NBD protocol, error values).
    return code == ENOTCONN || code == ESHUTDOWN ? .lost : .failed(errno: code)
  }
}

/// How a command on a connection ended.
public enum NBDEnd: Equatable, Sendable {
  /// The server did it.
  case done
  /// The server (or libnbd, for what it never sends) refused it; the error number is positive.
  case failed(errno: Int32)
  /// Nobody knows, or the server is leaving: it is to be done again on another connection.
  case lost
}
