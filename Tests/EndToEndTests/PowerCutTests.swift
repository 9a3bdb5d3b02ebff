import Blkback
import Frontends
import RingKit
import Testing

/// What a flush or barrier has acknowledged survives a power cut, whatever the moment.
@Suite(.serialized, .timeLimit(.minutes(10))) struct PowerCutTests {
  /// One way to lose power.
  struct Cut: Sendable, CustomTestStringConvertible {
    var seed: UInt64
    var queues: Int
    var persistent: Bool
    var abi: BlockABI

    /// Storage calls before it.
    var calls: Int { 40 + Int(seed * 7919 % 500) }
    var testDescription: String {
      "after \(calls) calls, \(queues) queues, \(abi), \(persistent ? "persistent" : "transient")"
    }
  }

  static let cuts = (UInt64(1)...16).map {
    Cut(
      seed: $0, queues: 1 + Int($0 % 4), persistent: $0 % 2 == 0, abi: BlockABI.allCases[Int($0 % 3)])
  }

  /// Writes and flushes until the power goes, then looks at the disk: sectors judged and sectors wrong.
  private func run(_ cut: Cut, keepsPromises: Bool) throws -> BlockWorkloadResult {
    let disk = try CuttableDisk(
      byteCount: 256 << 10, callsBeforeCut: cut.calls, seed: cut.seed, keepsPromises: keepsPromises)
    let model = DiskModel(sectorCount: 512, seed: cut.seed, initial: .zero, tracksFlushes: true)
    try serve(disk, cut) { frontend in
      var load = BlockWorkload()
      load.seed = cut.seed
      load.readPercent = 10
      load.blockByteCount = 512
      load.maximumBlockCount = 120
      load.queueDepth = 8
      load.requestCount = 4000
      load.writesBetweenFlushes = 12
      load.barrierPercent = 5
      load.flushWithDataPercent = 5
      load.discardPercent = 5
      load.stallMilliseconds = worldMilliseconds
      let error = #expect(throws: BlockFrontendError.self) { try load.run(on: frontend, model: model) }
      guard case .requestFailed = error else { throw WorldFailure("\(String(describing: error))") }
      try expectNoMorePromises(frontend)
    }
    #expect(disk.isOff)
    model.cutPower()
    disk.turnOn()
    var result = BlockWorkloadResult()
    try serve(disk, cut) { frontend in
      var load = BlockWorkload()
      load.pattern = .sequential
      load.requestCount = 64
      load.queueDepth = 8
      load.stallMilliseconds = worldMilliseconds
      result = try load.run(on: frontend, model: model)
    }
    #expect(result.verifiedSectors == 512)
    return result
  }

  /// From the loss on no write succeeds, and a flush is not answered at all: Linux takes a failed flush for a
  /// successful one and never asks again.
  private func expectNoMorePromises(_ frontend: BlockFrontend) throws {
    let queue = try frontend.queue()
    let flush = try #require(try queue.prepare(BlockFrontRequest(.flush, tag: 1)))
    queue.submit(flush)
    let write = try #require(try queue.prepare(BlockFrontRequest(.write, sectorCount: 8, tag: 2)))
    queue.submit(write)
    try frontend.push()
    while true {
      let completion = try frontend.answer()
      #expect(completion.tag != 1, "\(completion.response.status)")
      guard completion.tag == 2 else { continue }
      #expect(completion.response.status == .error)
      return
    }
  }

  /// A daemon and a guest, from start to end.
  private func serve(_ disk: CuttableDisk, _ cut: Cut, _ use: (BlockFrontend) throws -> Void) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 4
    offer.barrier = true
    offer.discard = true
    offer.indirectSegments = 64
    let world = try FrontendWorld(offer: offer, threadCount: 2) { _ in CuttableStore(disk) }
    try world.addDisk(byteCount: 4096)
    var options = BlockFrontendOptions()
    options.queueCount = cut.queues
    options.persistentGrants = cut.persistent
    options.abi = cut.abi
    let frontend = try world.connected(options)
    try use(frontend)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test(arguments: cuts) func nothingThatAFlushAcknowledgedIsLost(cut: Cut) throws {
    try run(cut, keepsPromises: true).expectIntegrity()
  }

  /// The check can fail: a disk that lies about its flushes is found out.
  @Test func aDiskThatLiesIsFoundOut() throws {
    var mismatches: UInt64 = 0
    for cut in Self.cuts.prefix(6) { mismatches += try run(cut, keepsPromises: false).mismatches }
    #expect(mismatches > 0)
  }
}
