public import CShared

/// Bytes in a Xen page: the unit of grants and rings on every architecture, whatever the kernel's page size
/// (grant_table.h, XEN_PAGE_SIZE).
public let pageByteCount = 4096

/// Owner of consecutive 4 KiB pages mapped into this process that another domain may be able to write.
///
/// The mapping lives exactly as long as this object. Nobody outside RingKit and the hosts sees its address:
/// callers name bytes by offset, and every offset is checked against the mapping.
@safe
public final class MappedPages: @unchecked Sendable {
  // Sound: the address and size never change, the release closure runs once, and bytes are reached only
  // through the copies of CShared, for which concurrent change is expected.
  @usableFromInline let base: UnsafeMutableRawPointer
  /// Pages in the mapping; at least 1.
  public let pageCount: Int
  private let release: @Sendable (UnsafeMutableRawPointer, Int) -> Void

  /// Takes over a mapping of `pageCount` pages at `base`; `release` unmaps it and runs once.
  @unsafe
  public init(
    base: UnsafeMutableRawPointer, pageCount: Int,
    release: @escaping @Sendable (UnsafeMutableRawPointer, Int) -> Void
  ) {
    precondition(pageCount > 0)
    unsafe self.base = base
    self.pageCount = pageCount
    unsafe self.release = release
  }

  deinit { unsafe release(base, pageCount) }

  /// Bytes in the mapping.
  @inlinable public var byteCount: Int { pageCount * 4096 }

  /// Names `length` bytes at `offset` for a transfer; the caller keeps this object alive until it ends.
  @inlinable
  public func segment(offset: Int, length: Int) -> IOSegment {
    precondition(offset >= 0 && length >= 0 && length <= byteCount && offset <= byteCount - length)
    return IOSegment(address: UInt(bitPattern: unsafe base) + UInt(offset), length: UInt(length))
  }

  /// The start of the mapping, for the hosts that implement grants; sound only while this object lives.
  @unsafe @inlinable public var unsafeBase: UnsafeMutableRawPointer { unsafe base }

  /// Copies bytes out, each read once (XSA-155).
  @inlinable
  public func copyOut(offset: Int, into destination: inout MutableRawSpan) {
    let count = destination.byteCount
    precondition(offset >= 0 && count <= byteCount && offset <= byteCount - count)
    // Sound: both ranges were just checked.
    unsafe destination.withUnsafeMutableBytes { buffer in
      guard let to = buffer.baseAddress else { return }
      unsafe shared_copy_in(to, base + offset, count)
    }
  }

  /// Copies bytes in, each written once.
  @inlinable
  public func copyIn(offset: Int, from source: RawSpan) {
    let count = source.byteCount
    precondition(offset >= 0 && count <= byteCount && offset <= byteCount - count)
    // Sound: both ranges were just checked.
    unsafe source.withUnsafeBytes { buffer in
      guard let from = buffer.baseAddress else { return }
      unsafe shared_copy_out(base + offset, from, count)
    }
  }
}
