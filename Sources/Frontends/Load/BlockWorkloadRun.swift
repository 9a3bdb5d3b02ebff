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

/// One run of a load: everything it needs is allocated at its start, except to track flushes.
struct BlockWorkloadRun {
  private let load: BlockWorkload
  private let frontend: BlockFrontend
  private var queues: [BlockFrontendQueue]
  private let model: DiskModel?
  private var choices: WorkloadChoices
  private let largestSectorCount: Int
  private let slotCount: Int
  private var made: UInt64 = 0
  private var writesSinceFlush: UInt64 = 0
  private var inFlight = 0
  /// By queue.
  private var depths: [Int]
  private var nextReconnect: UInt64
  private var buffer = SectorBuffer()
  /// By queue and request: when it was submitted, and the oldest write each of its sectors may return.
  private var startedAt: [UInt64]
  private var floors: [UInt32]
  private var promises: [RequestHandle: FlushPromise] = [:]
  private var result = BlockWorkloadResult()

  init(
    _ load: BlockWorkload, _ frontend: BlockFrontend, _ model: DiskModel?
  ) throws(BlockFrontendError) {
    guard frontend.isConnected, let disk = frontend.disk, let features = frontend.features,
      let first = frontend.queues.first
    else { throw .notConnected }
    queues = frontend.queues
    choices = try WorkloadChoices(load, disk, features, queue: first)
    if let model { precondition(model.sectorCount >= choices.sectors.upperBound) }
    self.load = load
    self.frontend = frontend
    self.model = model
    largestSectorCount = choices.largestSectorCount
    slotCount = first.slotCount
    depths = Array(repeating: 0, count: queues.count)
    nextReconnect = load.requestsBetweenReconnects
    startedAt = Array(repeating: 0, count: queues.count * slotCount)
    floors =
      model == nil ? [] : Array(repeating: 0, count: queues.count * slotCount * largestSectorCount)
  }

  mutating func finish() throws(BlockFrontendError) -> BlockWorkloadResult {
    let usage = ThreadUsage.ofThisThread()
    let notifications = frontend.notificationCount
    let sleeps = frontend.sleepCount
    let start = MonotonicClock.nowNanoseconds()
    let end = load.durationMilliseconds.map { start + UInt64($0) * 1_000_000 } ?? .max
    var now = start
    while true {
      if now < end { try fillQueues(now) }
      try frontend.push()
      if inFlight == 0 {
        guard now < end, made < load.requestCount ?? .max else { break }
        // Nothing can end and make room.
        throw .stalled(outstanding: 0, milliseconds: 0)
      }
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
    queues = frontend.queues
  }

  // MARK: Making requests

  /// Makes requests, one for each queue in turn, until all are as deep as wanted or none takes more.
  private mutating func fillQueues(_ now: UInt64) throws(BlockFrontendError) {
    var isAnyMade = true
    while isAnyMade {
      isAnyMade = false
      for number in queues.indices where depths[number] < load.queueDepth {
        guard made < load.requestCount ?? .max else { return }
        if try submitNext(queues[number], now) { isAnyMade = true }
      }
    }
  }

  /// Makes and submits the next request; false when it has to wait for others to end.
  private mutating func submitNext(
    _ queue: BlockFrontendQueue, _ now: UInt64
  ) throws(BlockFrontendError) -> Bool {
    if load.writesBetweenFlushes > 0 && writesSinceFlush >= load.writesBetweenFlushes {
      guard let handle = try queue.prepare(BlockFrontRequest(.flush)) else { return false }
      writesSinceFlush = 0
      if let promise = model?.beginFlush() { promises[handle] = promise }
      submit(queue, handle, now)
      return true
    }
    // The choice is only made for good once there is room: otherwise the same is made again.
    var chosen = choices
    guard let request = chosen.next(model), let handle = try queue.prepare(request) else { return false }
    choices = chosen
    let first = Int(request.sector)
    switch request.operation {
    case .read: noteFloors(handle, first, request.sectorCount)
    case .discard: model?.beginDiscard(first..<first + request.sectorCount)
    default:
      // What a barrier promises of the others, and a flush that carries data too.
      if request.operation != .write, let promise = model?.beginFlush() { promises[handle] = promise }
      stamp(queue, handle, first, request.sectorCount)
    }
    submit(queue, handle, now)
    return true
  }

  private mutating func submit(_ queue: BlockFrontendQueue, _ handle: RequestHandle, _ now: UInt64) {
    startedAt[handle.queue * slotCount + handle.index] = now
    queue.submit(handle)
    inFlight += 1
    depths[handle.queue] += 1
    made += 1
  }

  private func firstFloor(_ handle: RequestHandle) -> Int {
    (handle.queue * slotCount + handle.index) * largestSectorCount
  }

  private mutating func noteFloors(_ handle: RequestHandle, _ first: Int, _ count: Int) {
    guard let model else { return }
    let base = firstFloor(handle)
    for position in 0..<count { floors[base + position] = model.floor(first + position) }
  }

  private mutating func stamp(
    _ queue: BlockFrontendQueue, _ handle: RequestHandle, _ first: Int, _ count: Int
  ) {
    writesSinceFlush += 1
    guard let model else { return }
    for position in 0..<count {
      model.beginWrite(first + position).fill(&buffer)
      buffer.withBytes { queue.copyIn($0, to: handle, at: position * wireSectorByteCount) }
    }
  }

  // MARK: Taking responses

  /// Takes the responses that are there; false when there was none.
  private mutating func takeResponses(_ now: inout UInt64) throws(BlockFrontendError) -> Bool {
    var any = false
    for number in queues.indices {
      let queue = queues[number]
      while let completion = try queue.nextCompletion() {
        if !any { now = MonotonicClock.nowNanoseconds() }
        any = true
        guard let handle = completion.handle else { continue }
        inFlight -= 1
        depths[number] -= 1
        let started = startedAt[number * slotCount + handle.index]
        result.latency.record(now > started ? now - started : 0)
        try judge(queue, handle, completion.response.status)
        queue.release(handle)
      }
    }
    return any
  }

  private mutating func judge(
    _ queue: BlockFrontendQueue, _ handle: RequestHandle, _ status: BlockStatus
  ) throws(BlockFrontendError) {
    let request = queue.request(handle)
    let isOkay = status == .okay
    if isOkay { count(queue, request) }
    if request.operation == .read {
      if isOkay { verify(queue, handle, Int(request.sector), request.sectorCount) }
    } else {
      settle(handle, request, isOkay)
    }
    guard !isOkay else { return }
    result.errors += 1
    let error = BlockFrontendError.requestFailed(request.operation, sector: request.sector, status: status)
    if result.firstError == nil { result.firstError = error }
    guard load.toleratesErrors else { throw error }
  }

  private mutating func count(_ queue: BlockFrontendQueue, _ request: BlockFrontRequest) {
    let byteCount = UInt64(request.sectorCount) * UInt64(wireSectorByteCount)
    if queue.descriptorPageCount(of: request) > 0 { result.indirectRequests += 1 }
    switch request.operation {
    case .read:
      result.reads += 1
      result.bytesRead += byteCount
    case .discard:
      result.discards += 1
      result.bytesDiscarded += byteCount
    case .flush where byteCount == 0: result.flushes += 1
    default:
      result.writes += 1
      result.bytesWritten += byteCount
      if request.operation != .write { result.orderedWrites += 1 }
    }
  }

  /// Tells the model of the end of a change or a flush.
  private mutating func settle(_ handle: RequestHandle, _ request: BlockFrontRequest, _ isOkay: Bool) {
    guard let model else { return }
    let sectors = Int(request.sector)..<Int(request.sector) + request.sectorCount
    model.endWrite(sectors, succeeded: isOkay)
    guard let promise = promises.removeValue(forKey: handle), isOkay else { return }
    model.endFlush(promise)
    if request.operation == .writeBarrier { model.endDurableWrite(sectors) }
  }

  private mutating func verify(
    _ queue: BlockFrontendQueue, _ handle: RequestHandle, _ first: Int, _ count: Int
  ) {
    guard let model else { return }
    let base = firstFloor(handle)
    for position in 0..<count {
      buffer.withMutableBytes { queue.copyOut(&$0, from: handle, at: position * wireSectorByteCount) }
      result.verifiedSectors += 1
      let floor = floors[base + position]
      guard let fault = model.fault(buffer, sector: first + position, floor: floor) else { continue }
      result.mismatches += 1
      if result.firstMismatch == nil { result.firstMismatch = fault }
    }
  }
}
