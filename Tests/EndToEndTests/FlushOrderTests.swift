import Blkback
import Frontends
import RingKit
import Testing

/// A response to a flush means that a flush of the medium was made for it: begun after the guest asked, and so
/// after all writes it had seen complete, and ended before the guest was told.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FlushOrderTests {
  /// What the guest saw of one request.
  private struct Seen {
    var asked: Int
    var told: Int
    var request: BlockFrontRequest
  }

  @Test(arguments: [1, 4], [IOEngine.uring, .aio])
  func everyFlushOfTheGuestIsOneOfTheMedium(queues: Int, engine: IOEngine) throws {
    let log = CallLog()
    var offer = VbdOffer()
    offer.maximumQueues = 4
    offer.barrier = true
    let world = try FrontendWorld(offer: offer, threadCount: 2, engine: engine) { (disk) throws(VbdError) in
      WatchedStore(try disk.openStore(), log)
    }
    try world.addDisk(byteCount: 4 << 20)
    var options = BlockFrontendOptions()
    options.queueCount = queues
    let frontend = try world.connected(options)
    #expect(frontend.queues.count == queues)
    let seen = try use(frontend, log)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()

    let (flushes, writes) = (log.flushes, log.writes)
    #expect(flushes.allSatisfy { $0.result == 0 })
    for request in seen {
      if request.request.operation != .flush {
        // The guest is told of a write only once the medium has it.
        let offset = request.request.sector * 512
        #expect(
          writes.contains { $0.offset == offset && $0.began > request.asked && $0.ended < request.told },
          "the write at \(offset) was acknowledged at \(request.told)")
      }
      if request.request.operation == .flush || request.request.operation == .writeBarrier {
        #expect(
          flushes.contains { $0.began > request.asked && $0.ended < request.told },
          "the \(request.request.operation) from \(request.asked) to \(request.told)")
      }
      if request.request.operation == .writeBarrier {
        // Its own data too.
        let offset = request.request.sector * 512
        let written = writes.first { $0.offset == offset && $0.began > request.asked }
        #expect(
          flushes.contains { $0.began > written?.ended ?? .max && $0.ended < request.told },
          "the barrier at \(offset) is not durable")
      }
    }
    #expect(seen.count { $0.request.operation == .flush } > 20)
    #expect(seen.count { $0.request.operation == .write } > 200)
  }

  /// Makes writes, each to a place of its own, with flushes among them.
  private func use(_ frontend: BlockFrontend, _ log: CallLog) throws -> [Seen] {
    var seen: [Seen] = []
    var asked: [RequestHandle: Int] = [:]
    var random = SeededGenerator(seed: 12)
    var made = 0
    let canBar = frontend.features?.barrier == true
    while seen.count < 400 {
      for queue in frontend.queues where made < 400 && queue.outstanding < 6 {
        let chance = random.next() % 10
        let operation: BlockOperation = chance == 0 ? .flush : chance == 1 && canBar ? .writeBarrier : .write
        let request = BlockFrontRequest(
          operation, sector: operation == .flush ? 0 : UInt64(made) * 8,
          sectorCount: operation == .flush ? 0 : 8)
        guard let handle = try queue.prepare(request) else { continue }
        asked[handle] = log.tick()
        queue.submit(handle)
        made += 1
      }
      try frontend.push()
      let completion = try frontend.answer()
      let handle = try #require(completion.handle)
      #expect(completion.response.status == .okay)
      let request = frontend.queues[handle.queue].request(handle)
      seen.append(Seen(asked: try #require(asked[handle]), told: log.tick(), request: request))
      frontend.release(handle)
    }
    return seen
  }
}
