/// Bytes of memory that a transfer reads or writes: the layout of `struct iovec`.
///
/// It is only a name. It is made by the owners of memory (``MappedPages``, buffer pools); whoever holds it
/// keeps the owner alive while a transfer uses it, and only RingKit and the hosts turn it into a pointer.
@frozen
public struct IOSegment: BitwiseCopyable, Sendable, Equatable {
  /// First byte's address.
  public var address: UInt
  /// Bytes.
  public var length: UInt

  /// Names `length` bytes at `address`; for owners of memory and hosts.
  @inlinable
  public init(address: UInt, length: UInt) {
    self.address = address
    self.length = length
  }

  /// The same bytes without the first `count`.
  @inlinable
  public func dropping(first count: UInt) -> IOSegment {
    precondition(count <= length)
    return IOSegment(address: address + count, length: length - count)
  }

  /// `count` bytes beginning at `offset`.
  @inlinable
  public func slice(offset: UInt, count: UInt) -> IOSegment {
    precondition(offset <= length && count <= length - offset)
    return IOSegment(address: address + offset, length: count)
  }
}
