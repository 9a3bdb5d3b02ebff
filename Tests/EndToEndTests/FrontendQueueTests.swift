import RingKit
import Testing

@testable import Blkback
@testable import Frontends

/// A queue against a backend's ring in the same process: what it puts into slots, and what it makes of
/// answers.
@Suite struct FrontendQueueTests {
  @Test(arguments: BlockABI.allCases)
  func requestsAreEncodedAsLinuxDoes(abi: BlockABI) throws {
    var bench = try QueueBench(abi: abi)
    let request = BlockFrontRequest(
      .write, sector: 0x1_2345_6789, sectorCount: 12, firstPageSector: 6, tag: 77)
    let handle = try #require(try bench.queue.prepare(request))
    bench.queue.submit(handle)
    let slot = try bench.take()
    let taken = BlockRequest(slot, abi: abi)
    #expect(taken.operation == .write)
    #expect(taken.sectorNumber == 0x1_2345_6789)
    #expect(taken.handle == UInt16(51712))
    // 2 sectors at the end of the first page, 8 in the second, 2 in the third.
    #expect(taken.segmentCount == 3)
    let segments = (0..<3).map { taken.segment(at: $0, in: slot) }
    #expect(segments.map(\.firstSector) == [6, 0, 0])
    #expect(segments.map(\.lastSector) == [7, 7, 1])
    #expect(segments.map(\.reference.rawValue) == [1000, 1001, 1002])

    bench.answer(BlockResponse(id: taken.id, operation: .write, status: .okay))
    let completion = try #require(try bench.queue.nextCompletion())
    #expect(completion.handle == handle)
    #expect(completion.tag == 77)
    #expect(completion.response.status == .okay)
    bench.queue.release(handle)
    #expect(try bench.queue.nextCompletion() == nil)
  }

  @Test func dataLandsWhereTheSegmentsPoint() throws {
    let bench = try QueueBench()
    let handle = try #require(
      try bench.queue.prepare(BlockFrontRequest(.write, sector: 8, sectorCount: 10, firstPageSector: 7)))
    var buffer = SectorBuffer()
    for sector in 0..<10 {
      buffer[0] = UInt64(sector)
      buffer.withBytes { bench.queue.copyIn($0, to: handle, at: sector * 512) }
    }
    #expect(bench.queue.dataSegment(0, of: handle).length == 512)
    #expect(bench.queue.dataSegment(1, of: handle).length == 4096)
    #expect(bench.queue.dataSegment(2, of: handle).length == 512)
    let gap = bench.queue.dataSegment(1, of: handle).address - bench.queue.dataSegment(0, of: handle).address
    #expect(gap == 512)
    for sector in 0..<10 {
      buffer.withMutableBytes { bench.queue.copyOut(&$0, from: handle, at: sector * 512) }
      #expect(buffer[0] == UInt64(sector))
    }
  }

  @Test func flushesAndDiscardsCarryNoPages() throws {
    var bench = try QueueBench(dataPages: 1)
    for request in [BlockFrontRequest(.flush), BlockFrontRequest(.discard, sector: 5, sectorCount: 1 << 40)] {
      let handle = try #require(try bench.queue.prepare(request))
      bench.queue.submit(handle)
      let taken = BlockRequest(try bench.take(), abi: .x86_64)
      #expect(taken.operation == request.operation)
      #expect(taken.segmentCount == 0)
      #expect(taken.discardSectorCount == (request.operation == .discard ? 1 << 40 : 0))
    }
  }

  @Test func whatDoesNotFitWaits() throws {
    var bench = try QueueBench(dataPages: 12)
    let large = BlockFrontRequest(.read, sectorCount: 88)
    let first = try #require(try bench.queue.prepare(large))
    #expect(try bench.queue.prepare(large) == nil)
    let second = try #require(try bench.queue.prepare(BlockFrontRequest(.read, sectorCount: 1)))
    bench.queue.release(second)
    bench.queue.release(first)
    // As many as the ring has slots, prepared or placed.
    for index in 0..<32 {
      let handle = try #require(try bench.queue.prepare(BlockFrontRequest(.flush)))
      if index % 2 == 0 { bench.queue.submit(handle) }
    }
    #expect(try bench.queue.prepare(BlockFrontRequest(.flush)) == nil)
    #expect(!bench.queue.submitRaw(SlotCopy()))
    _ = try bench.take()
  }

  @Test func anAnswerThatNobodyAskedForDisablesTheQueue() throws {
    for wrong in [UInt64.max, 0, 31, 0xFFFF_FFF1_0000_0020] {
      var bench = try QueueBench()
      bench.queue.submit(try #require(try bench.queue.prepare(BlockFrontRequest(.flush))))
      _ = try bench.take()
      bench.answer(BlockResponse(id: wrong, operation: .flush, status: .okay))
      #expect(throws: BlockFrontendError.self) { try bench.queue.nextCompletion() }
      #expect(throws: BlockFrontendError.self) { try bench.queue.prepare(BlockFrontRequest(.flush)) }
    }
  }

  @Test func aSecondAnswerDisablesTheQueue() throws {
    var bench = try QueueBench()
    var ids: [UInt64] = []
    for _ in 0..<2 {
      bench.queue.submit(try #require(try bench.queue.prepare(BlockFrontRequest(.flush))))
      ids.append(BlockRequest(try bench.take(), abi: .x86_64).id)
    }
    bench.answer(BlockResponse(id: ids[0], operation: .flush, status: .okay))
    bench.answer(BlockResponse(id: ids[0], operation: .flush, status: .okay))
    let first = try #require(try bench.queue.nextCompletion())
    bench.queue.release(try #require(first.handle))
    let error = #expect(throws: BlockFrontendError.self) { try bench.queue.nextCompletion() }
    guard case .unknownResponse(let response) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(response.id == ids[0])
  }

  @Test func anAnswerThatNamesAnotherOperationDisablesTheQueue() throws {
    var bench = try QueueBench()
    bench.queue.submit(try #require(try bench.queue.prepare(BlockFrontRequest(.read, sectorCount: 8))))
    let id = BlockRequest(try bench.take(), abi: .x86_64).id
    bench.answer(BlockResponse(id: id, operation: .write, status: .okay))
    let error = #expect(throws: BlockFrontendError.self) { try bench.queue.nextCompletion() }
    guard case .wrongOperation(_, asked: .read) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func aProducerThatRunsAheadDisablesTheQueue() throws {
    let bench = try QueueBench()
    var producer = UInt32(0x1234)
    unsafe withUnsafeBytes(of: &producer) { bytes in
      // Sound: the bytes of a local integer, for the call.
      unsafe bench.queue.ringPages.pages.copyIn(
        offset: RingGeometry.responseProducerOffset, from: RawSpan(_unsafeBytes: bytes))
    }
    let error = #expect(throws: BlockFrontendError.self) { try bench.queue.nextCompletion() }
    guard case .ring = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func answersToRawSlotsAreReportedWithoutAHandle() throws {
    var bench = try QueueBench()
    let raw = BlockRequest(
      operation: BlockOperation(rawValue: 200), segmentCount: 255, id: 0xDEAD, sectorNumber: 0, abi: .x86_64)
    #expect(bench.queue.submitRaw(raw.encode()))
    #expect(BlockRequest(try bench.take(), abi: .x86_64) == raw)
    bench.answer(
      BlockResponse(id: 0xDEAD, operation: BlockOperation(rawValue: 200), status: .notSupported))
    let completion = try #require(try bench.queue.nextCompletion())
    #expect(completion.handle == nil)
    #expect(completion.response.status == .notSupported)
  }

  @Test func aNewRingCarriesWhatTheOldOneDid() throws {
    var bench = try QueueBench()
    var ids = Set<UInt64>()
    for sector in 0..<5 {
      let request = BlockFrontRequest(.read, sector: UInt64(sector), sectorCount: 1)
      bench.queue.submit(try #require(try bench.queue.prepare(request)))
      ids.insert(BlockRequest(try bench.take(), abi: .x86_64).id)
    }
    let answered = try #require(ids.min())
    bench.answer(BlockResponse(id: answered, operation: .read, status: .okay))
    bench.queue.release(try #require(try bench.queue.nextCompletion()?.handle))
    ids.remove(answered)

    let ring = try sharedPages(1)
    try bench.queue.restart(ringPages: ring, port: Port(rawValue: 2), firstRingIndex: 0)
    try bench.queue.begin(RequestLimits()) { RequestPages() }
    bench.back = try BackRing(pages: ring.pages, slotByteCount: 112)
    var again = Set<UInt64>()
    for _ in 0..<4 { again.insert(BlockRequest(try bench.take(), abi: .x86_64).id) }
    #expect(again == ids)
    #expect(bench.queue.port == Port(rawValue: 2))
    #expect(throws: BlockFrontendError.self) {
      try bench.queue.restart(
        ringPages: try sharedPages(2), port: Port(rawValue: 2), firstRingIndex: 0)
    }
  }

  @Test(arguments: [true, false])
  func grantsForOneRequestEndWithIt(persistent: Bool) throws {
    let sharing = PrivateSharing()
    var bench = try QueueBench(sharing: sharing, persistent: persistent)
    var references: [UInt32] = []
    for operation in [BlockOperation.write, .read] {
      let handle = try #require(try bench.queue.prepare(BlockFrontRequest(operation, sectorCount: 16)))
      bench.queue.submit(handle)
      let slot = try bench.take()
      let taken = BlockRequest(slot, abi: .x86_64)
      references += (0..<2).map { taken.segment(at: $0, in: slot).reference.rawValue }
      bench.answer(BlockResponse(id: taken.id, operation: operation, status: .okay))
      bench.queue.release(try #require(try bench.queue.nextCompletion()?.handle))
    }
    #expect(references == [1, 2, 3, 4])
    // What the backend only reads is granted only for that, unless it may keep the page for later.
    #expect(sharing.accesses == [persistent ? .readWrite : .readOnly, .readWrite])
  }
}
