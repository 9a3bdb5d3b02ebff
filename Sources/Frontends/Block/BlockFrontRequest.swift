public import Blkback

/// A request as a guest's block layer would make it.
@frozen
public struct BlockFrontRequest: BitwiseCopyable, Sendable {
  /// Read, write, flush, write barrier, or discard.
  public var operation: BlockOperation
  /// First sector, in units of 512 bytes.
  public var sector: UInt64
  /// Units of 512 bytes. A flush or write barrier may have none; with data they carry at most
  /// ``directSectorCount``, and reads and writes at most ``BlockFrontendQueue/maximumSectorCount``.
  public var sectorCount: Int
  /// Where the data begins in the first page: 0...7 units of 512 bytes. The pages after it are used from
  /// their start.
  public var firstPageSector: Int
  /// For a discard: all copies are to become unrecoverable (BLKIF_DISCARD_SECURE).
  public var isSecure: Bool
  /// The caller's own name for the request, given back with its completion.
  public var tag: UInt64

  /// Sectors of 11 whole pages: what a slot without descriptor pages can carry.
  public static var directSectorCount: Int { maximumDirectSegments * 8 }

  /// Describes a request.
  public init(
    _ operation: BlockOperation, sector: UInt64 = 0, sectorCount: Int = 0, firstPageSector: Int = 0,
    isSecure: Bool = false, tag: UInt64 = 0
  ) {
    precondition(sectorCount >= 0 && firstPageSector >= 0 && firstPageSector < 8)
    self.operation = operation
    self.sector = sector
    self.sectorCount = sectorCount
    self.firstPageSector = firstPageSector
    self.isSecure = isSecure
    self.tag = tag
  }

  /// Pages of data; 0 for a discard and an empty flush.
  var pageCount: Int {
    operation == .discard || sectorCount == 0 ? 0 : (firstPageSector + sectorCount + 7) / 8
  }
}

/// Names a prepared request until it is released.
@frozen
public struct RequestHandle: Hashable, BitwiseCopyable, Sendable {
  /// The queue.
  public let queue: Int
  /// The request's place in the queue's table, 0 up to the ring's slots.
  public let index: Int
}

/// A response, with the request it answers.
@frozen
public struct BlockCompletion: BitwiseCopyable, Sendable {
  /// The request, whose pages stay until it is released; nil for the answer to a raw slot.
  public let handle: RequestHandle?
  /// The request's ``BlockFrontRequest/tag``; 0 for a raw slot.
  public let tag: UInt64
  /// What the backend said.
  public let response: BlockResponse
}
