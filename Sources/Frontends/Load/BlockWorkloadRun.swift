import Blkback
import RingKit

extension BlockWorkload {
  /// Runs the load on a connected frontend without other requests in flight, and takes all of its responses.
  ///
  /// With a `model` every write is stamped and every sector read is judged; without one, data is left as it
  /// is. Throws when the connection is of no more use, or at the first failed request unless that is
  /// tolerated.
  public func run(
    on frontend: BlockFrontend, model: DiskModel? = nil
  ) throws(BlockFrontendError) -> BlockWorkloadResult {
    var run = try BlockWorkloadRun(self, frontend, model)
    return try run.finish()
  }
}

/// One run of a load: everything it needs is allocated at its start.
struct BlockWorkloadRun {
  private let load: BlockWorkload
  private let frontend: BlockFrontend
  private var queue: BlockFrontendQueue
  private let model: DiskModel?
  private let firstSector: Int
  private let blockSectors: Int
  private let blockCount: Int
  private var random: SeededGenerator
  private var nextBlock = 0
  private var made: UInt64 = 0
  private var writesSinceFlush: UInt64 = 0
  private var inFlight = 0
  private var nextReconnect: UInt64
  private var buffer = SectorBuffer()
  /// By request: when it was submitted, and the oldest write each of its sectors may return.
  private var startedAt: [UInt64]
  private var floors: [UInt32]
  private var result = BlockWorkloadResult()

  init(
    _ load: BlockWorkload, _ frontend: BlockFrontend, _ model: DiskModel?
  ) throws(BlockFrontendError) {
    guard frontend.isConnected, let disk = frontend.disk else { throw .notConnected }
    queue = try frontend.queue()
    let sectors = load.sectors ?? 0..<disk.sectorCount
    precondition(load.blockByteCount > 0 && load.blockByteCount % 512 == 0)
    precondition(load.queueDepth > 0 && load.readPercent >= 0 && load.readPercent <= 100)
    blockSectors = load.blockByteCount / 512
    guard sectors.upperBound <= disk.sectorCount, sectors.count >= blockSectors else {
      throw .doesNotFit(
        sector: sectors.lowerBound, byteCount: UInt64(max(sectors.count * 512, load.blockByteCount)),
        diskSectors: disk.sectorCount)
    }
    if let model { precondition(model.sectorCount >= Int(sectors.upperBound)) }
    self.load = load
    self.frontend = frontend
    self.model = model
    firstSector = Int(sectors.lowerBound)
    blockCount = sectors.count / blockSectors
    random = SeededGenerator(seed: load.seed)
    nextReconnect = load.requestsBetweenReconnects
    startedAt = Array(repeating: 0, count: queue.slotCount)
    floors = model == nil ? [] : Array(repeating: 0, count: queue.slotCount * blockSectors)
  }

  mutating func finish() throws(BlockFrontendError) -> BlockWorkloadResult {
    let usage = ThreadUsage.ofThisThread()
    let notifications = frontend.notificationCount
    let sleeps = frontend.sleepCount
    let start = MonotonicClock.nowNanoseconds()
    let end = load.durationMilliseconds.map { start + UInt64($0) * 1_000_000 } ?? .max
    var now = start
    while true {
      while inFlight < load.queueDepth, now < end, made < load.requestCount ?? .max {
        guard try submitNext(now) else { break }
      }
      try frontend.push()
      if inFlight == 0 { break }
      try reconnectIfDue()
      let any = try takeResponses(&now)
      if !any {
        guard try frontend.wait(timeoutMilliseconds: load.stallMilliseconds) else {
          throw .stalled(outstanding: inFlight, milliseconds: load.stallMilliseconds)
        }
        now = MonotonicClock.nowNanoseconds()
      }
    }
    result.elapsedNanoseconds = MonotonicClock.nowNanoseconds() - start
    result.usage = ThreadUsage.ofThisThread().since(usage)
    result.notifications = frontend.notificationCount - notifications
    result.sleeps = frontend.sleepCount - sleeps
    return result
  }

  private mutating func reconnectIfDue() throws(BlockFrontendError) {
    guard load.requestsBetweenReconnects > 0, made >= nextReconnect else { return }
    nextReconnect = made + load.requestsBetweenReconnects
    try frontend.reconnect(timeoutMilliseconds: load.stallMilliseconds)
    queue = try frontend.queue()
  }

  // MARK: Making requests

  /// Makes and submits the next request; false when it has to wait for others to end.
  private mutating func submitNext(_ now: UInt64) throws(BlockFrontendError) -> Bool {
    if load.writesBetweenFlushes > 0 && writesSinceFlush >= load.writesBetweenFlushes {
      guard let handle = try queue.prepare(BlockFrontRequest(.flush)) else { return false }
      writesSinceFlush = 0
      submit(handle, now)
      return true
    }
    var chosen = random
    let isRead = Int(chosen.next() % 100) < load.readPercent
    guard let block = chooseBlock(isRead: isRead, &chosen) else { return false }
    let first = firstSector + block * blockSectors
    let request = BlockFrontRequest(
      isRead ? .read : .write, sector: UInt64(first), sectorCount: blockSectors,
      firstPageSector: load.firstPageSector)
    guard let handle = try queue.prepare(request) else { return false }
    // Only now is the choice made for good: one that found no room is made again, the same.
    random = chosen
    nextBlock = block + 1 == blockCount ? 0 : block + 1
    if isRead { noteFloors(handle, first) } else { stamp(handle, first) }
    submit(handle, now)
    return true
  }

  private func chooseBlock(isRead: Bool, _ random: inout SeededGenerator) -> Int? {
    for _ in 0..<8 {
      let block: Int
      switch load.pattern {
      case .sequential: block = nextBlock
      case .random: block = Int(random.next() % UInt64(blockCount))
      }
      let first = firstSector + block * blockSectors
      guard !isRead, let model, !model.canWrite(first..<first + blockSectors) else { return block }
    }
    return nil
  }

  private mutating func submit(_ handle: RequestHandle, _ now: UInt64) {
    startedAt[handle.index] = now
    queue.submit(handle)
    inFlight += 1
    made += 1
  }

  private mutating func noteFloors(_ handle: RequestHandle, _ first: Int) {
    guard let model else { return }
    for position in 0..<blockSectors {
      floors[handle.index * blockSectors + position] = model.floor(first + position)
    }
  }

  private mutating func stamp(_ handle: RequestHandle, _ first: Int) {
    writesSinceFlush += 1
    guard let model else { return }
    for position in 0..<blockSectors {
      model.beginWrite(first + position).fill(&buffer)
      buffer.withBytes { queue.copyIn($0, to: handle, at: position * wireSectorByteCount) }
    }
  }

  // MARK: Taking responses

  /// Takes the responses that are there; false when there was none.
  private mutating func takeResponses(_ now: inout UInt64) throws(BlockFrontendError) -> Bool {
    var any = false
    while let completion = try queue.nextCompletion() {
      if !any { now = MonotonicClock.nowNanoseconds() }
      any = true
      guard let handle = completion.handle else { continue }
      inFlight -= 1
      let started = startedAt[handle.index]
      result.latency.record(now > started ? now - started : 0)
      try judge(handle, completion.response.status)
      queue.release(handle)
    }
    return any
  }

  private mutating func judge(_ handle: RequestHandle, _ status: BlockStatus) throws(BlockFrontendError) {
    let request = queue.request(handle)
    let isOkay = status == .okay
    let first = Int(request.sector)
    switch request.operation {
    case .read where isOkay:
      result.reads += 1
      result.bytesRead += UInt64(request.sectorCount * wireSectorByteCount)
      verify(handle, first)
    case .write:
      model?.endWrite(first..<first + request.sectorCount, succeeded: isOkay)
      guard isOkay else { break }
      result.writes += 1
      result.bytesWritten += UInt64(request.sectorCount * wireSectorByteCount)
    case .flush where isOkay: result.flushes += 1
    default: break
    }
    guard !isOkay else { return }
    result.errors += 1
    let error = BlockFrontendError.requestFailed(request.operation, sector: request.sector, status: status)
    if result.firstError == nil { result.firstError = error }
    guard load.toleratesErrors else { throw error }
  }

  private mutating func verify(_ handle: RequestHandle, _ first: Int) {
    guard let model else { return }
    for position in 0..<blockSectors {
      buffer.withMutableBytes { queue.copyOut(&$0, from: handle, at: position * wireSectorByteCount) }
      result.verifiedSectors += 1
      let floor = floors[handle.index * blockSectors + position]
      guard let fault = model.fault(buffer, sector: first + position, floor: floor) else { continue }
      result.mismatches += 1
      if result.firstMismatch == nil { result.firstMismatch = fault }
    }
  }
}
