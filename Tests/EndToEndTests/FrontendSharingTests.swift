import Blkback
import Frontends
import RingKit
import Testing

/// What the queues of a disk share on real threads: blocks larger than the guest's sectors, the buffers of a
/// thread, and the guest's pages that stay mapped.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendSharingTests {
  /// A store below in blocks of 4096 bytes.
  private final class CoarseStore: StoreAround {
    let below: any BlockStore

    init(_ below: any BlockStore) { self.below = below }

    var geometry: MediumGeometry { MediumGeometry(blockByteCount: 4096, memoryAlignment: 512) }
    var physicalBlockByteCount: Int { 4096 }
    var discard: DiscardSupport? { nil }
    var maximumQueueCount: Int { .max }
  }

  /// Small writes on four queues of two threads to a few blocks: each is read, changed and written while others
  /// want the same. One that is undone shows in the model, one that is never woken as a stall.
  @Test(arguments: [true, false], [1, 2])
  func partsOfBlocksOnManyQueues(persistent: Bool, threads: Int) throws {
    let disk = try CuttableDisk(byteCount: 64 << 10, callsBeforeCut: .max, seed: 5)
    var offer = VbdOffer()
    offer.maximumQueues = 4
    let world = try FrontendWorld(offer: offer, threadCount: threads) { (_) throws(VbdError) in
      CoarseStore(CuttableStore(disk))
    }
    try world.addDisk()
    var options = BlockFrontendOptions()
    options.queueCount = 4
    options.persistentGrants = persistent
    let frontend = try world.connected(options)
    #expect(frontend.queues.count == 4)
    let model = DiskModel(sectorCount: 128, seed: 0xB10C, initial: .zero)
    var load = BlockWorkload()
    load.blockByteCount = 512
    load.maximumBlockCount = 3
    load.readPercent = 20
    load.queueDepth = 8
    load.requestCount = 4000
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    result.expectIntegrity()
    #expect(result.requests == 4000)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// Queues of one thread whose pool holds one large request at a time: whoever waits is woken by whoever
  /// ends, for there is no timer.
  @Test func queuesTakeTurnsWithOneBuffer() throws {
    let disk = try CuttableDisk(byteCount: 1 << 20, callsBeforeCut: .max, seed: 6)
    var offer = VbdOffer()
    offer.maximumQueues = 4
    offer.persistentGrants = false
    let world = try FrontendWorld(offer: offer, poolByteCount: 64 << 10) { (_) throws(VbdError) in
      CuttableStore(disk)
    }
    try world.addDisk()
    var options = BlockFrontendOptions()
    options.queueCount = 4
    let frontend = try world.connected(options)
    let model = DiskModel(sectorCount: 2048, seed: 0xB0FF, initial: .zero)
    var load = BlockWorkload()
    load.blockByteCount = 4096
    load.maximumBlockCount = 11
    load.readPercent = 50
    load.queueDepth = 8
    load.requestCount = 1000
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    result.expectIntegrity()
    #expect(result.requests == 1000)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// A quiet guest gets its pages back, all but the ring's, and the disk goes on as before.
  @Test func aQuietGuestGetsItsPagesBack() throws {
    var offer = VbdOffer()
    offer.persistentIdleMilliseconds = 60
    let world = try FrontendWorld(offer: offer)
    try world.addDisk()
    let frontend = try world.connected()
    let ringPages = world.mappedPageCount
    for round in 0..<2 {
      for sector in 0..<40 {
        #expect(
          try frontend.perform(BlockFrontRequest(.write, sector: UInt64(sector) * 88, sectorCount: 88))
            == .okay)
      }
      if round == 0 { #expect(world.mappedPageCount > ringPages) }
      let deadline = MonotonicClock.nowNanoseconds() + UInt64(worldMilliseconds) * 1_000_000
      while world.mappedPageCount > ringPages && MonotonicClock.nowNanoseconds() < deadline {
        // Asks the daemon's control thread, which lets others run meanwhile.
        _ = try world.node("state")
      }
      #expect(world.mappedPageCount == ringPages)
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  /// A frontend that never uses a page twice cannot have more of them mapped than the limit.
  @Test func noMorePagesStayMappedThanTheLimit() throws {
    var offer = VbdOffer()
    offer.persistentPageLimit = 8
    let world = try FrontendWorld(offer: offer)
    try world.addDisk()
    let frontend = try world.connected()
    let ringPages = world.mappedPageCount
    for sector in 0..<40 {
      // Eleven segments: more than fit, so the request is copied or some of its pages leave early.
      #expect(
        try frontend.perform(BlockFrontRequest(.write, sector: UInt64(sector) * 88, sectorCount: 88)) == .okay
      )
      #expect(world.mappedPageCount <= ringPages + 8)
    }
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
