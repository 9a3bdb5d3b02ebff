import CShared

/// A disk made of memory, for tests and benchmarks. Shared by the threads that serve it, which read and write
/// it as a medium: what concurrent transfers of the same bytes leave behind is their users' affair.
@safe
public final class MemoryDisk: Sendable {
  private let pages: MappedPages

  /// A disk of `byteCount` bytes, all zero; a positive multiple of 4096.
  public init(byteCount: Int) throws(SystemError) {
    precondition(byteCount > 0 && byteCount % pageByteCount == 0)
    pages = try MappedPages.anonymous(pageCount: byteCount / pageByteCount)
  }

  /// Bytes on the disk.
  public var byteCount: Int { pages.byteCount }

  /// Reads into memory whose owner the caller keeps alive.
  public func read(at offset: UInt64, into segment: IOSegment) {
    let source = pages.segment(offset: Int(offset), length: Int(segment.length))
    copy(from: source, to: segment)
  }

  /// Writes from memory whose owner the caller keeps alive.
  public func write(at offset: UInt64, from segment: IOSegment) {
    let destination = pages.segment(offset: Int(offset), length: Int(segment.length))
    copy(from: segment, to: destination)
  }

  /// Makes a range of bytes read as zeros.
  public func zero(at offset: UInt64, byteCount: Int) {
    let range = pages.segment(offset: Int(offset), length: byteCount)
    // Sound: the range was just checked against the disk.
    unsafe UnsafeMutableRawPointer(bitPattern: range.address)?.initializeMemory(
      as: UInt8.self, repeating: 0, count: byteCount)
  }

  private func copy(from source: IOSegment, to destination: IOSegment) {
    // Sound: one side was just checked against the disk, the other is named by its owner, and both are as
    // long.
    guard let from = unsafe UnsafeRawPointer(bitPattern: source.address),
      let to = unsafe UnsafeMutableRawPointer(bitPattern: destination.address)
    else { return }
    unsafe shared_copy_data(to, from, Int(source.length))
  }
}
