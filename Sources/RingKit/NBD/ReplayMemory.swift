import CShared
import Glibc

/// Memory of fixed size that keeps copies of data on their way to a server. Touched pages only cost memory.
@safe
public final class ReplayMemory {
  private let pages: MappedPages

  /// Reserves `byteCount` bytes, a positive multiple of 4096.
  public init(byteCount: Int) throws(SystemError) {
    precondition(byteCount > 0 && byteCount % pageByteCount == 0)
    pages = try MappedPages.anonymous(pageCount: byteCount / pageByteCount)
  }

  /// Bytes there are.
  public var byteCount: Int { pages.byteCount }

  /// Names bytes; the caller keeps this object while they are used.
  public func segment(at offset: Int, byteCount: Int) -> IOSegment {
    pages.segment(offset: offset, length: byteCount)
  }

  /// Copies a segment, whose owner the caller keeps alive, to `offset`.
  public func keep(_ source: IOSegment, at offset: Int) {
    let destination = pages.segment(offset: offset, length: Int(source.length))
    // Sound: one side was just checked, the other is named by its owner, and both are as long; the source may
    // be a guest's page, for which concurrent change is expected.
    guard let from = unsafe UnsafeRawPointer(bitPattern: source.address),
      let to = unsafe UnsafeMutableRawPointer(bitPattern: destination.address)
    else { return }
    unsafe shared_copy_data(to, from, Int(source.length))
  }
}
