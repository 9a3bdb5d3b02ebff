import CXen
import Glibc

/// Granting our own pages through /dev/xen/gntalloc (xengnttab.h, xengntshr_*).
@safe
public final class XenGrantSharing: GrantSharing {
  private let handle: Handle

  /// Opens the device.
  public init() throws(HostError) {
    handle = try Handle()
  }

  public func share(
    pageCount: Int, with domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> SharedPages {
    let what = "share \(pageCount) pages with domain \(domain)"
    guard let count = UInt16(exactly: pageCount), count > 0 else {
      throw GrantError(operation: what, errno: EINVAL)
    }
    var raw = [UInt32](repeating: 0, count: pageCount)
    // Sound: the library writes `count` references during the call. The pages come zeroed from the kernel.
    guard
      let base = unsafe xengntshr_share_pages(
        handle.raw, UInt32(domain.rawValue), Int32(count), &raw, access == .readWrite ? 1 : 0)
    else { throw GrantError(operation: what, errno: errno) }
    // Sound: the mapping is ours from here on; the grants end when it goes (gntalloc was told so already).
    let pages = unsafe MappedPages(base: base, pageCount: pageCount) { [handle] base, pageCount in
      _ = unsafe xengntshr_unshare(handle.raw, base, UInt32(pageCount))
    }
    return SharedPages(pages: pages, references: raw.map(GrantReference.init(rawValue:)))
  }

  /// The open device; it outlives every mapping made through it.
  @safe
  private final class Handle: @unchecked Sendable {
    // Sound: the library keeps no state of its own but the descriptor, and the kernel locks for itself.
    let raw: OpaquePointer

    init() throws(HostError) {
      guard let raw = unsafe xengntshr_open(ringback_quiet_logger(), 0) else {
        throw HostError.missingDevice("/dev/xen/gntalloc", module: "xen-gntalloc", errno: errno)
      }
      unsafe self.raw = raw
      // The library opens this device without O_CLOEXEC, unlike the others.
      _ = unsafe fcntl(xengntshr_fd(raw), F_SETFD, FD_CLOEXEC)
    }

    deinit { unsafe xengntshr_close(raw) }
  }
}
