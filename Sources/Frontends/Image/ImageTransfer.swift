import Blkback
import RingKit

/// Copies images between files and a disk, many requests at a time, the data straight between the file and
/// the granted pages.
public struct ImageTransfer {
  /// Requests in flight.
  public var queueDepth = 16
  /// Milliseconds without any response after which it gives up.
  public var stallMilliseconds = 10_000

  /// The usual depth.
  public init() {}

  private enum Direction { case toDisk, toFile, compare }

  /// Writes the file at `path` to the disk from `sector` on and flushes; returns its bytes. What is left of
  /// the last sector is zeroed.
  @discardableResult
  public func copyIn(
    path: String, to frontend: BlockFrontend, sector: UInt64 = 0
  ) throws(BlockFrontendError) -> UInt64 {
    let file = try open(path, writing: false)
    let byteCount = try size(of: file)
    _ = try transfer(.toDisk, file, frontend, sector: sector, byteCount: byteCount)
    try flush(frontend)
    return byteCount
  }

  /// Writes `byteCount` bytes of the disk from `sector` on into a new file at `path`.
  public func copyOut(
    from frontend: BlockFrontend, sector: UInt64 = 0, byteCount: UInt64, path: String
  ) throws(BlockFrontendError) {
    _ = try transfer(.toFile, try open(path, writing: true), frontend, sector: sector, byteCount: byteCount)
  }

  /// Compares the file at `path` with the disk from `sector` on: the first sector of the disk (in units of
  /// 512 bytes) that differs, or nil when they are the same.
  public func compare(
    path: String, with frontend: BlockFrontend, sector: UInt64 = 0
  ) throws(BlockFrontendError) -> UInt64? {
    let file = try open(path, writing: false)
    let byteCount = try size(of: file)
    return try transfer(.compare, file, frontend, sector: sector, byteCount: byteCount)
  }

  /// Makes the disk durable in the way the backend offers and waits for it; one that offers none promises
  /// that each write is durable when it completes.
  public func flush(_ frontend: BlockFrontend) throws(BlockFrontendError) {
    guard let operation = frontend.features?.flushOperation else { return }
    let queue = try frontend.queue()
    guard let handle = try queue.prepare(BlockFrontRequest(operation)) else {
      throw .stalled(outstanding: queue.outstanding, milliseconds: 0)
    }
    queue.submit(handle)
    try frontend.push()
    let done = try next(frontend, queue)
    defer { queue.release(done.0) }
    try require(done.1, queue.request(done.0))
  }

  // MARK: The loop

  private func transfer(
    _ direction: Direction, _ file: ImageFile, _ frontend: BlockFrontend, sector: UInt64, byteCount: UInt64
  ) throws(BlockFrontendError) -> UInt64? {
    guard frontend.isConnected, let disk = frontend.disk else { throw .notConnected }
    let queue = try frontend.queue()
    let alignment = UInt64(disk.sectorByteCount)
    let sectorCount = (byteCount + alignment - 1) / alignment * (alignment / UInt64(wireSectorByteCount))
    guard sector <= disk.sectorCount, sectorCount <= disk.sectorCount - sector else {
      throw .doesNotFit(sector: sector, byteCount: byteCount, diskSectors: disk.sectorCount)
    }
    let largest = largestPiece(disk, queue)
    var comparison = SectorComparison()
    var different: UInt64?
    var made: UInt64 = 0
    var inFlight = 0
    while made < sectorCount || inFlight > 0 {
      while made < sectorCount, inFlight < queueDepth {
        let request = BlockFrontRequest(
          direction == .toDisk ? .write : .read, sector: sector + made,
          sectorCount: Int(min(sectorCount - made, largest)))
        guard let handle = try queue.prepare(request) else { break }
        if direction == .toDisk {
          try eachPage(handle, queue, from: sector) { segment, offset throws(SystemError) in
            try file.read(into: segment, at: offset)
          }
        }
        queue.submit(handle)
        made += UInt64(request.sectorCount)
        inFlight += 1
      }
      try frontend.push()
      let (handle, status) = try next(frontend, queue)
      inFlight -= 1
      let request = queue.request(handle)
      try require(status, request)
      switch direction {
      case .toDisk: break
      case .toFile:
        try eachPage(handle, queue, from: sector) { segment, offset throws(SystemError) in
          // The disk's last sector may reach beyond the bytes asked for.
          guard offset < byteCount else { return }
          let count = min(UInt64(segment.length), byteCount - offset)
          try file.write(segment.slice(offset: 0, count: UInt(count)), at: offset)
        }
      case .compare:
        let found = try comparison.firstDifference(handle, queue, file, from: sector)
        if let found { different = min(different ?? found, found) }
      }
      queue.release(handle)
    }
    return different
  }

  /// Sectors of the largest request that a disk with large sectors takes, too.
  private func largestPiece(_ disk: DiskProperties, _ queue: BlockFrontendQueue) -> UInt64 {
    let unit = max(1, disk.sectorByteCount / wireSectorByteCount)
    return UInt64(max(unit, queue.maximumSectorCount / unit * unit))
  }

  /// Calls `body` for each page of a request with its data and where that is in the file.
  private func eachPage(
    _ handle: RequestHandle, _ queue: BlockFrontendQueue, from sector: UInt64,
    _ body: (IOSegment, UInt64) throws(SystemError) -> Void
  ) throws(BlockFrontendError) {
    let request = queue.request(handle)
    var offset = (request.sector - sector) * UInt64(wireSectorByteCount)
    do throws(SystemError) {
      for position in 0..<request.pageCount {
        let segment = queue.dataSegment(position, of: handle)
        try body(segment, offset)
        offset += UInt64(segment.length)
      }
    } catch {
      throw .system(error)
    }
  }

  private func next(
    _ frontend: BlockFrontend, _ queue: BlockFrontendQueue
  ) throws(BlockFrontendError) -> (RequestHandle, BlockStatus) {
    while true {
      if let completion = try queue.nextCompletion() {
        guard let handle = completion.handle else { continue }
        return (handle, completion.response.status)
      }
      guard try frontend.wait(timeoutMilliseconds: stallMilliseconds) else {
        throw .stalled(outstanding: queue.outstanding, milliseconds: stallMilliseconds)
      }
    }
  }

  private func require(_ status: BlockStatus, _ request: BlockFrontRequest) throws(BlockFrontendError) {
    guard status == .okay else {
      throw .requestFailed(request.operation, sector: request.sector, status: status)
    }
  }

  private func open(_ path: String, writing: Bool) throws(BlockFrontendError) -> ImageFile {
    do throws(SystemError) {
      return try ImageFile(path: path, writing: writing)
    } catch {
      throw .system(error)
    }
  }

  private func size(of file: ImageFile) throws(BlockFrontendError) -> UInt64 {
    do throws(SystemError) {
      return try file.byteCount()
    } catch {
      throw .system(error)
    }
  }
}
