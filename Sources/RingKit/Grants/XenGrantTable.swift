import CXen
import Glibc

/// Grants through /dev/xen/gntdev (xengnttab.h).
@safe
public final class XenGrantTable: GrantTable {
  private let handle: Handle

  /// Opens the device.
  public init() throws(HostError) {
    handle = try Handle()
  }

  public func map(
    _ references: [GrantReference], of domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> MappedPages {
    let what = "map \(references.count) grants of domain \(domain)"
    guard !references.isEmpty else { throw GrantError(operation: what, errno: EINVAL) }
    var raw = references.map(\.rawValue)
    let protection = access == .readWrite ? PROT_READ | PROT_WRITE : PROT_READ
    // Sound: the library reads `raw.count` references during the call and keeps no pointer to them.
    guard
      let base = unsafe xengnttab_map_domain_grant_refs(
        handle.raw, UInt32(raw.count), UInt32(domain.rawValue), &raw, protection)
    else { throw GrantError(operation: what, errno: errno) }
    // Sound: the mapping is ours from here on. The closure keeps the device open until it is unmapped.
    return unsafe MappedPages(base: base, pageCount: raw.count) { [handle] base, pageCount in
      // Nothing can be done on failure; closing the device at the end unmaps what is left.
      _ = unsafe xengnttab_unmap(handle.raw, base, UInt32(pageCount))
    }
  }

  public func copy(_ batch: inout GrantCopyBatch) {
    // The kernel marks the private pages of a call written or not by the last copy it met (gntdev.c,
    // gntdev_copy_batch.writeable), so that a call of both directions could lose what it wrote.
    // Sound: the batch, and its arrays with it, stays for the calls.
    unsafe copy(batch.unsafeCopiesIn)
    unsafe copy(batch.unsafeCopiesOut)
  }

  @unsafe
  private func copy(_ copies: UnsafeMutableBufferPointer<xengnttab_grant_copy_segment_t>) {
    guard !copies.isEmpty else { return }
    // A failed ioctl leaves statuses as they were preset, which is failed (XSA-226's class), so its result
    // adds nothing.
    _ = unsafe xengnttab_grant_copy(handle.raw, UInt32(copies.count), copies.baseAddress)
  }

  /// The open device; it outlives every mapping made through it.
  @safe
  private final class Handle: @unchecked Sendable {
    // Sound: the library keeps no state of its own but the descriptor, and the kernel locks for itself.
    let raw: OpaquePointer

    init() throws(HostError) {
      guard let raw = unsafe xengnttab_open(ringback_quiet_logger(), 0) else {
        throw HostError.missingDevice("/dev/xen/gntdev", module: "xen-gntdev", errno: errno)
      }
      unsafe self.raw = raw
    }

    deinit { unsafe xengnttab_close(raw) }
  }
}
