import Netback
import RingKit
import Simulator
import Testing

/// Control messages 8 to 10: staging grants.
struct ControlStagingTests {
  static func entries(_ references: [GrantReference], readOnly: Bool = false) -> [NetGrantEntry] {
    references.map {
      NetGrantEntry(reference: $0, flags: readOnly ? NetGrantEntry.readOnlyFlag : 0, status: 0xBEEF)
    }
  }

  @Test func trap35_everyQueueIsAskedByItsNumber() throws {
    let fixture = try ControlFixture()
    for queue: UInt32 in 0..<4 {
      let response = try fixture.ask(.getGrantMappingSize, queue)
      #expect(response.status == 0 && response.data == 64)
    }
    let list = fixture.list(Self.entries(fixture.pages(1, count: 1)))
    for queue: UInt32 in [4, 5, 0x1_0000, 0x8000_0000, .max] {
      for type in [NetControlType.getGrantMappingSize, .addGrantMapping, .deleteGrantMapping] {
        let response = try fixture.ask(type, queue, list, 1)
        #expect(response.status == 2 && response.data == 0)
      }
    }
    #expect(fixture.host.mapAttemptCount == 0)
  }

  @Test func withoutRoomNothingIsOffered() throws {
    let fixture = try ControlFixture { $0.stagingCapacity = 0 }
    let response = try fixture.ask(.getGrantMappingSize, 0)
    #expect(response.status == 0 && response.data == 0)
    let list = fixture.list(Self.entries(fixture.pages(1, count: 1)))
    #expect(try fixture.status(.addGrantMapping, 0, list, 1) == .notSupported)
    #expect(try fixture.status(.deleteGrantMapping, 0, list, 1) == .notSupported)
    #expect(fixture.host.copyCount == 0)
  }

  @Test func pagesAreThereForTheirQueueAndTheirUse() throws {
    let fixture = try ControlFixture()
    let writable = fixture.pages(1, count: 20)
    let fixed = fixture.pages(30, count: 5, readOnly: true)
    let entries = Self.entries(writable) + Self.entries(fixed, readOnly: true)
    let list = fixture.list(entries)
    #expect(try fixture.status(.addGrantMapping, 2, list, 25) == .success)
    // An addition leaves the list as it was.
    #expect(fixture.entries(count: 25) == entries)
    for (index, reference) in writable.enumerated() {
      for use in [false, true] {
        #expect(fixture.host.stagedPage(reference, onQueue: 2, writable: use) == 1 + index)
        #expect(fixture.host.stagedPage(reference, onQueue: 1, writable: use) == nil)
      }
    }
    for (index, reference) in fixed.enumerated() {
      #expect(fixture.host.stagedPage(reference, onQueue: 2, writable: false) == 30 + index)
      #expect(fixture.host.stagedPage(reference, onQueue: 2, writable: true) == nil)
    }
    #expect(fixture.host.mappedCount == 25 && fixture.world.stagedCount(onQueue: 2) == 25)
  }

  /// All or nothing: whatever is wrong with one entry leaves everything as it was.
  @Test func anAdditionThatFailsAddsNothing() throws {
    let fixture = try ControlFixture()
    let known = fixture.pages(1, count: 10)
    #expect(try fixture.status(.addGrantMapping, 0, fixture.list(Self.entries(known)), 10) == .success)
    let fresh = Self.entries(fixture.pages(20, count: 40))
    let fixed = fixture.pages(70, count: 1, readOnly: true)[0]
    let bad = [
      NetGrantEntry(reference: GrantReference(rawValue: 0xDEAD_BEEF)),
      NetGrantEntry(reference: fixed), NetGrantEntry(reference: known[3]),
      NetGrantEntry(reference: known[3], flags: 1), fresh[7],
      NetGrantEntry(reference: GrantReference(rawValue: 0x1000_0000), flags: 2),
      NetGrantEntry(reference: fixture.pages(80, count: 1)[0], flags: 0x8000),
    ]
    for entry in bad {
      for place in [0, 15, 16, 17, 40] {
        var entries = fresh
        entries.insert(entry, at: place)
        let list = fixture.list(entries)
        #expect(
          try fixture.status(.addGrantMapping, 0, list, 41) == .invalidParameter, "\(entry) at \(place)")
        #expect(fixture.host.mappedCount == 10 && fixture.world.stagedCount(onQueue: 0) == 10)
        #expect(fixture.host.stagedCount(onQueue: 0) == 10)
      }
    }
    // The same list without the bad entry does.
    #expect(try fixture.status(.addGrantMapping, 0, fixture.list(fresh), 40) == .success)
    #expect(fixture.host.mappedCount == 50)
  }

  @Test func thereIsRoomForSoManyAndNoMore() throws {
    let fixture = try ControlFixture()
    let references = fixture.pages(1, count: 66)
    let list = fixture.list(Self.entries(references))
    #expect(try fixture.status(.addGrantMapping, 3, list, 65) == .invalidParameter)
    #expect(fixture.host.mapAttemptCount == 0)
    #expect(try fixture.status(.addGrantMapping, 3, list, 64) == .success)
    let more = fixture.list(Self.entries(Array(references[64...])))
    #expect(try fixture.status(.addGrantMapping, 3, more, 1) == .invalidParameter)
    // Another queue has its own.
    #expect(try fixture.status(.addGrantMapping, 1, more, 2) == .success)
    #expect(fixture.host.mappedCount == 66)
  }

  @Test func listsAreBoundedByTheirPage() throws {
    let fixture = try ControlFixture { $0.stagingCapacity = 1024 }
    let list = fixture.list(Self.entries(fixture.pages(1, count: 1)))
    for type in [NetControlType.addGrantMapping, .deleteGrantMapping] {
      for count: UInt32 in [513, 1024, 0x2000_0000, 0x2000_0001, 0x8000_0000, .max] {
        #expect(try fixture.status(type, 0, list, count) == .invalidParameter)
      }
      // Nothing is asked for, so nothing is looked at.
      #expect(try fixture.status(type, 0, 0xDEAD_BEEF, 0) == .success)
    }
    #expect(fixture.host.copyCount == 0)
    #expect(try fixture.status(.deleteGrantMapping, 0, list, 512) == .success)
  }

  /// The header has the list granted for writing; one that is not is refused before anything happens.
  @Test func aListThatCannotBeWrittenIsRefused() throws {
    let fixture = try ControlFixture()
    let references = fixture.pages(1, count: 4)
    let fixed = fixture.list(Self.entries(references), readOnly: true)
    #expect(try fixture.status(.addGrantMapping, 0, fixed, 4) == .invalidParameter)
    #expect(try fixture.status(.addGrantMapping, 0, 0xDEAD_BEEF, 4) == .invalidParameter)
    #expect(fixture.host.mapAttemptCount == 0)
    let list = fixture.list(Self.entries(references), page: 9)
    #expect(try fixture.status(.addGrantMapping, 0, list, 4) == .success)
    #expect(try fixture.status(.deleteGrantMapping, 0, fixed, 4) == .invalidParameter)
    #expect(try fixture.status(.deleteGrantMapping, 0, 0xDEAD_BEEF, 4) == .invalidParameter)
    #expect(fixture.host.mappedCount == 4 && fixture.host.stagedCount(onQueue: 0) == 4)
  }

  @Test func everyEntryOfADeletionHasItsStatus() throws {
    let fixture = try ControlFixture()
    let references = fixture.pages(1, count: 20)
    let list = fixture.list(Self.entries(references))
    #expect(try fixture.status(.addGrantMapping, 1, list, 20) == .success)
    let unknown = GrantReference(rawValue: 0xDEAD_BEEF)
    let entries = Self.entries([
      references[4], unknown, references[19], references[4], references[0], unknown,
    ])
    let deletion = fixture.list(entries, page: 30)
    var response = try fixture.ask(.deleteGrantMapping, 1, deletion, 6)
    #expect(response.status == 0 && response.data == 3)
    let told = fixture.entries(page: 30, count: 6)
    #expect(told.map(\.status) == [0, 2, 0, 2, 0, 2])
    #expect(told.map(\.reference) == entries.map(\.reference))
    #expect(fixture.host.mappedCount == 17)
    for index in [0, 4, 19] {
      #expect(fixture.host.stagedPage(references[index], onQueue: 1, writable: false) == nil)
      #expect(!fixture.host.isMapped(references[index]))
    }
    // A queue that has none of them has nothing to let go of.
    response = try fixture.ask(.deleteGrantMapping, 0, list, 20)
    #expect(response.status == 0 && response.data == 0)
    #expect(fixture.entries(count: 20).allSatisfy { $0.status == 2 })
    response = try fixture.ask(.deleteGrantMapping, 1, list, 20)
    #expect(response.status == 0 && response.data == 17)
    #expect(fixture.host.mappedCount == 0)
    // And what was let go of can be added again.
    #expect(try fixture.status(.addGrantMapping, 1, list, 20) == .success)
  }

  /// The answer comes when the page is unmapped, and that when the queue's thread has let go of it.
  @Test func aPageIsUnmappedBetweenTheQueuesAnswerAndOurs() throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    let references = fixture.pages(1, count: 3)
    let list = fixture.list(Self.entries(references))
    #expect(try fixture.status(.addGrantMapping, 0, list, 3) == .success)
    world.place(NetControlRequest(id: 77, type: .deleteGrantMapping, 0, list, 3))
    world.push()
    while world.runIfDue() {}
    #expect(try world.takeResponses().isEmpty)
    #expect(world.pendingCount == 1 && fixture.host.mappedCount == 3)
    #expect(fixture.host.stagedPage(references[0], onQueue: 0, writable: true) == 1)
    // Answers that nobody asked for change nothing.
    for token: UInt32 in [0, 2, 3, .max] { world.deliverForged(token: token) }
    while world.runIfDue() {}
    #expect(try world.takeResponses().isEmpty && fixture.host.mappedCount == 3)
    world.deliver(toQueue: 0)
    #expect(fixture.host.stagedCount(onQueue: 0) == 0 && fixture.host.mappedCount == 3)
    #expect(world.settle() == nil)
    #expect(fixture.host.mappedCount == 0)
    let responses = try world.takeResponses()
    #expect(responses.map(\.id) == [77] && responses.map(\.data) == [3])
  }

  /// The list's grant ends under way: the pages are gone all the same, and the answer says that it was not told.
  @Test func aListThatIsGoneAtTheEndFailsTheAnswer() throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    let list = fixture.list(Self.entries(fixture.pages(1, count: 3)))
    #expect(try fixture.status(.addGrantMapping, 0, list, 3) == .success)
    world.place(NetControlRequest(id: 5, type: .deleteGrantMapping, 0, list, 3))
    world.push()
    while world.runIfDue() {}
    fixture.guest.revoke(GrantReference(rawValue: list))
    #expect(world.settle() == nil)
    let responses = try world.takeResponses()
    #expect(responses.map(\.status) == [2] && responses.map(\.data) == [3])
    #expect(fixture.host.mappedCount == 0 && fixture.host.violations.isEmpty)
  }

  /// XSA-218, 224: one reference is mapped once, whoever uses it.
  @Test func queuesShareAMapping() throws {
    let fixture = try ControlFixture()
    let reference = fixture.pages(1, count: 1)[0]
    let list = fixture.list(Self.entries([reference]))
    let fixed = fixture.list(Self.entries([reference], readOnly: true), page: 2)
    #expect(try fixture.status(.addGrantMapping, 0, fixed, 1) == .success)
    // What is mapped for reading cannot be written by another queue.
    #expect(try fixture.status(.addGrantMapping, 1, list, 1) == .invalidParameter)
    #expect(try fixture.status(.addGrantMapping, 1, fixed, 1) == .success)
    #expect(fixture.host.mapAttemptCount == 1 && fixture.host.mappedCount == 1)
    #expect(try fixture.ask(.deleteGrantMapping, 0, list, 1).data == 1)
    #expect(fixture.host.isMapped(reference))
    #expect(fixture.host.stagedPage(reference, onQueue: 1, writable: false) == 1)
    #expect(try fixture.ask(.deleteGrantMapping, 1, list, 1).data == 1)
    #expect(!fixture.host.isMapped(reference))
  }

  /// Windows spins on the control ring: what needs no queue is answered while queues are stuck.
  @Test func trap38_hashesAreAnsweredWhileAQueueIsStuck() throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    let list = fixture.list(Self.entries(fixture.pages(1, count: 3)))
    #expect(try fixture.status(.addGrantMapping, 0, list, 3) == .success)
    // Of these the queue's thread answers none.
    for id in 0..<10 {
      let type: NetControlType = id % 2 == 0 ? .deleteGrantMapping : .addGrantMapping
      world.place(NetControlRequest(id: UInt16(id), type: type, 0, list, 3))
    }
    world.push()
    while world.runIfDue() {}
    #expect(try world.takeResponses().isEmpty && world.pendingCount == 10)
    for id in 100..<200 {
      world.place(NetControlRequest(id: UInt16(id), type: .setHashMappingSize, UInt32(id % 100)))
      world.push()
      while world.runIfDue() {}
      #expect(try world.takeResponses().map(\.id) == [UInt16(id)])
    }
    #expect(world.settle() == nil)
    let responses = try world.takeResponses()
    #expect(responses.map(\.id) == (0..<10).map { UInt16($0) })
    #expect(responses.allSatisfy { $0.status == 0 })
    #expect(fixture.host.violations.isEmpty && fixture.host.mappedCount == 3)
  }

  /// A ring full of the longest requests costs each turn a few pages.
  @Test func turnsAreBounded() throws {
    let fixture = try ControlFixture { $0.stagingCapacity = 100 }
    let world = fixture.world
    let list = fixture.list(Self.entries(fixture.pages(1, count: 100)))
    for id in 0..<128 {
      let type: NetControlType = id % 2 == 0 ? .addGrantMapping : .deleteGrantMapping
      world.place(NetControlRequest(id: UInt16(id), type: type, 0, list, 100))
    }
    world.push()
    var (mapped, copied, answered) = (0, 0, 0)
    while answered < 128 {
      let before = fixture.host.mappedCount
      if !world.runIfDue() { world.deliver(toQueue: 0) }
      world.deliver(toQueue: 0)
      #expect(fixture.host.mapAttemptCount - mapped <= 16 && fixture.host.copyCount - copied <= 2)
      #expect(before - fixture.host.mappedCount <= 16)
      (mapped, copied) = (fixture.host.mapAttemptCount, fixture.host.copyCount)
      let responses = try world.takeResponses()
      #expect(responses.allSatisfy { $0.status == 0 })
      answered += responses.count
      try #require(world.turnCount < 10_000)
    }
    #expect(fixture.host.mapAttemptCount == 6400 && fixture.host.mappedCount == 0)
  }

  /// A connection that ends leaves nothing mapped, whatever is under way.
  @Test(arguments: [0, 1, 2, 3, 5, 8, 13, 21, 34])
  func theEndLeavesNothingMapped(turns: Int) throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    let lists = (0..<3).map { number in
      fixture.list(Self.entries(fixture.pages(10 + number * 30, count: 30)), page: number)
    }
    for (id, list) in (lists + lists).enumerated() {
      let type: NetControlType = id < 3 ? .addGrantMapping : .deleteGrantMapping
      world.place(NetControlRequest(id: UInt16(id), type: type, UInt32(id % 3), list, 30))
    }
    world.push()
    for turn in 0..<turns where !world.runIfDue() { world.deliver(toQueue: turn % 3) }
    world.close()
    #expect(fixture.host.mappedCount == 0 && fixture.host.violations.isEmpty)
  }
}
