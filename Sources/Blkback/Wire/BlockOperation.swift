/// What a request asks for (blkif.h, BLKIF_OP_*). A guest writes it, so any of the 256 values may come.
@frozen
public struct BlockOperation: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The number on the wire.
  public let rawValue: UInt8
  /// Wraps a number.
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// BLKIF_OP_READ.
  @inlinable public static var read: BlockOperation { BlockOperation(rawValue: 0) }
  /// BLKIF_OP_WRITE.
  @inlinable public static var write: BlockOperation { BlockOperation(rawValue: 1) }
  /// BLKIF_OP_WRITE_BARRIER: earlier writes are durable before it, later ones wait for it; may carry data.
  @inlinable public static var writeBarrier: BlockOperation { BlockOperation(rawValue: 2) }
  /// BLKIF_OP_FLUSH_DISKCACHE: commit the volatile cache; data it carries are written afterwards, as Linux
  /// does.
  @inlinable public static var flush: BlockOperation { BlockOperation(rawValue: 3) }
  /// BLKIF_OP_DISCARD: a hint that a range is no longer needed.
  @inlinable public static var discard: BlockOperation { BlockOperation(rawValue: 5) }
  /// BLKIF_OP_INDIRECT: a read or write whose segments lie in pages of their own.
  @inlinable public static var indirect: BlockOperation { BlockOperation(rawValue: 6) }

  /// The operation's name, or its number.
  public var description: String {
    switch self {
    case .read: "read"
    case .write: "write"
    case .writeBarrier: "write barrier"
    case .flush: "flush"
    case .discard: "discard"
    case .indirect: "indirect"
    default: "operation \(rawValue)"
    }
  }
}

/// How a request ended (blkif.h, BLKIF_RSP_*).
@frozen
public struct BlockStatus: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The number on the wire.
  public let rawValue: Int16
  /// Wraps a number.
  @inlinable public init(rawValue: Int16) { self.rawValue = rawValue }

  /// BLKIF_RSP_OKAY.
  @inlinable public static var okay: BlockStatus { BlockStatus(rawValue: 0) }
  /// BLKIF_RSP_ERROR.
  @inlinable public static var error: BlockStatus { BlockStatus(rawValue: -1) }
  /// BLKIF_RSP_EOPNOTSUPP: the frontend stops using the operation.
  @inlinable public static var notSupported: BlockStatus { BlockStatus(rawValue: -2) }

  /// The status' name, or its number.
  public var description: String {
    switch self {
    case .okay: "okay"
    case .error: "error"
    case .notSupported: "not supported"
    default: "status \(rawValue)"
    }
  }
}
