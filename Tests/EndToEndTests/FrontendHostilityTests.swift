import Blkback
import Foundation
import Frontends
import Loopback
import RingKit
import Synchronization
import Testing

/// Frontends that break the rules, and what becomes of them and of their neighbours.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendHostilityTests {
  @Test func aReadOnlyDiskRefusesWrites() throws {
    let world = try FrontendWorld()
    try world.addDisk(writable: false)
    let frontend = try world.connected()
    #expect(frontend.disk?.isReadOnly == true)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .error)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test(arguments: BlockABI.allCases)
  func requestsBeyondTheRulesAreAnsweredAndTheDiskServesOn(abi: BlockABI) throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.abi = abi
    let frontend = try world.connected(options)
    let last: UInt64 = (1 << 11) - 1
    let cases: [(BlockFrontRequest, BlockStatus)] = [
      (BlockFrontRequest(.read, sector: last, sectorCount: 1), .okay),
      (BlockFrontRequest(.read, sector: last, sectorCount: 2), .error),
      (BlockFrontRequest(.write, sector: last + 1, sectorCount: 1), .error),
      (BlockFrontRequest(.read, sector: .max, sectorCount: 88), .error),
      (BlockFrontRequest(.write, sector: 1 << 55, sectorCount: 8), .error),
      (BlockFrontRequest(.read, sectorCount: 0), .error),
      (BlockFrontRequest(.discard, sectorCount: 8), .okay),
      (BlockFrontRequest(BlockOperation(rawValue: 4)), .notSupported),
      (BlockFrontRequest(BlockOperation(rawValue: 255)), .notSupported),
      (BlockFrontRequest(.flush), .okay),
    ]
    for (request, status) in cases {
      let answered = try frontend.perform(request)
      #expect(answered == status, "\(request.operation) at \(request.sector): \(answered)")
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test(arguments: [true, false])
  func segmentsAndReferencesBeyondTheRulesAreErrors(persistent: Bool) throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.persistentGrants = persistent
    let frontend = try world.connected(options)
    let queue = try frontend.queue()
    for (first, last, reference) in [
      (UInt8(5), UInt8(2), UInt32(0)), (0, 8, 0), (255, 255, 0), (0, 255, 0), (0, 7, 0xFFFF_FFFF),
      (0, 7, 60_000),
    ] {
      for operation in [BlockOperation.read, .write] {
        let request = BlockRequest(
          operation: operation, segmentCount: 1, id: 1 << 63, sectorNumber: 0, abi: .x86_64)
        var slot = request.encode()
        let segment = BlockSegment(
          reference: GrantReference(rawValue: reference), firstSector: first, lastSector: last)
        request.setSegment(segment, at: 0, in: &slot)
        #expect(queue.submitRaw(slot))
        try frontend.push()
        let completion = try frontend.answer()
        #expect(completion.response.id == 1 << 63)
        #expect(completion.response.status == .error, "\(first)...\(last) of \(reference)")
      }
    }
    // More segments than a slot holds.
    for count in [UInt8(12), 255] {
      let request = BlockRequest(operation: .write, segmentCount: count, id: 5, sectorNumber: 0, abi: .x86_64)
      #expect(queue.submitRaw(request.encode()))
      try frontend.push()
      #expect(try frontend.answer().response.status == .error)
    }
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// Writes the frontend's request producer, bypassing the ring.
  private func setProducer(_ value: UInt32, of queue: BlockFrontendQueue) {
    var value = value
    unsafe withUnsafeBytes(of: &value) { bytes in
      // Sound: the bytes of a local integer, for the call.
      unsafe queue.ringPages.pages.copyIn(
        offset: RingGeometry.requestProducerOffset, from: RawSpan(_unsafeBytes: bytes))
    }
  }

  /// Breaks the rules of a connected disk's ring and waits until the backend has given it up.
  private func breakRing(of frontend: BlockFrontend, producer: UInt32) throws {
    let queue = try frontend.queue()
    setProducer(producer, of: queue)
    try frontend.kick(queue)
    let error = #expect(throws: BlockFrontendError.self, "producer \(producer)") {
      try frontend.wait(timeoutMilliseconds: worldMilliseconds)
    }
    guard case .directory(.backendClosed) = error else {
      throw WorldFailure("producer \(producer): \(String(describing: error))")
    }
  }

  @Test(arguments: [33, 1000, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func aProducerThatOverrunsBreaksTheRingUntilItReconnects(producer: UInt32) throws {
    let world = try FrontendWorld()
    try world.addDisk()
    let frontend = try world.connected()
    try breakRing(of: frontend, producer: producer)
    #expect(try world.errorText()?.contains("\(producer)") == true)
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  /// What the verifying neighbour of an attacker has to tell.
  private final class Neighbour: Sendable {
    let outcome = Mutex<Result<BlockWorkloadResult, any Error>?>(nil)
    let ended = DispatchSemaphore(value: 0)
  }

  @Test func anAttackedDiskLeavesItsNeighbourAlone() throws {
    let world = try FrontendWorld()
    let other = DomainID(rawValue: 8)
    try world.addDisk()
    try world.addDisk(other, FrontendWorld.device, byteCount: 1 << 20)
    let hypervisor = try world.host.hypervisor(for: other)
    let neighbour = Neighbour()
    let thread = Thread {
      let outcome = Result { () throws -> BlockWorkloadResult in
        let frontend = try BlockFrontend(hypervisor: hypervisor, domain: other, device: FrontendWorld.device)
        try frontend.connect(timeoutMilliseconds: worldMilliseconds)
        var load = BlockWorkload()
        load.readPercent = 50
        load.queueDepth = 8
        load.requestCount = 20_000
        load.stallMilliseconds = worldMilliseconds
        let model = DiskModel(sectorCount: 1 << 11, seed: 8, initial: .zero)
        let result = try load.run(on: frontend, model: model)
        try frontend.close(timeoutMilliseconds: worldMilliseconds)
        return result
      }
      neighbour.outcome.withLock { $0 = outcome }
      neighbour.ended.signal()
    }
    thread.start()

    let attacker = try world.connected()
    var random = SeededGenerator(seed: 99)
    for round in 0..<20 {
      let queue = try attacker.queue()
      // Slots of anything at all, as many as fit, then a producer that cannot be.
      var slot = SlotCopy()
      while true {
        for offset in stride(from: 0, to: 112, by: 8) { slot.setUInt64(random.next(), at: offset) }
        slot.setUInt8(UInt8(random.next() % 8), at: 0)
        guard queue.submitRaw(slot) else { break }
      }
      try attacker.push()
      var answers = 0
      while answers < queue.slotCount {
        _ = try attacker.answer()
        answers += 1
      }
      for _ in 0..<50 { try attacker.kick(queue) }
      try breakRing(of: attacker, producer: queue.producerBeyondTheRing &+ UInt32(round))
      try attacker.reconnect(timeoutMilliseconds: worldMilliseconds)
    }
    #expect(try attacker.perform(BlockFrontRequest(.flush)) == .okay)
    try attacker.close(timeoutMilliseconds: worldMilliseconds)

    guard neighbour.ended.wait(timeout: .now() + 60) == .success else {
      throw WorldFailure("the neighbour hangs")
    }
    let result = try #require(neighbour.outcome.withLock { $0 }).get()
    result.expectIntegrity()
    #expect(result.requests == 20_000)
    try world.stop()
  }
}

extension BlockFrontendQueue {
  /// A producer that a new ring with all its slots used once and answered cannot have.
  var producerBeyondTheRing: UInt32 { UInt32(slotCount) * 2 + 1 }
}
