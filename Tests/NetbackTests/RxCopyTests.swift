import Netback
import RingKit
import Simulator
import Testing

/// How data reach the guest's pages, and what becomes of copies that fail.
@Suite struct RxCopyTests {
  /// One failed slot of a packet, wherever it is: that slot says ERROR, the frontend drops the packet, and
  /// the packets around it arrive.
  @Test(arguments: 0..<4, [SimulatedNetRxFrontend.Page.bad, .readOnly])
  func trap28_oneFailedCopyEndsOnePacket(position: Int, kind: SimulatedNetRxFrontend.Page) throws {
    let fixture = try RxFixture(headroom: 256)
    let before = RxFrameBytes.frame(1, byteCount: 1000)
    let bytes = RxFrameBytes.frame(2, byteCount: 4 * 3840)
    let after = RxFrameBytes.frame(3, byteCount: 2000)
    // Slots: data, extra; data, extra, data, data, data; data, extra.
    fixture.post(2)
    for slot in 0..<5 {
      // The extra info's page is not copied to, so that the bad one is never at 1.
      let bad = position == 0 ? 0 : position + 1
      fixture.post(1, slot == bad ? kind : .granted)
    }
    fixture.post(2)
    for frame in [before, bytes, after] { #expect(try fixture.deliver(frame) == .taken) }
    #expect(fixture.flush() == .idle)
    #expect(try fixture.received().map(\.bytes) == [before, after])
    #expect(fixture.frontend.failedCount == 1 && fixture.frontend.postedCount == 0)
    let counters = fixture.engine.counters
    #expect(counters.copyErrors == 1 && counters.drops[.copyFailed] == 1 && counters.packets == 2)
    #expect(counters.bytes == 3000 && counters.slots == 9 && counters.extras == 3)
    fixture.expectClean()
  }

  /// The page of an extra info's slot is of no use to anybody: a bad one harms nothing.
  @Test func trap29_aBadPageUnderAnExtraInfoHarmsNothing() throws {
    let fixture = try RxFixture(headroom: 64)
    fixture.post(1)
    fixture.post(1, .bad)
    let bytes = RxFrameBytes.frame(1, byteCount: 200)
    #expect(try fixture.deliver(bytes) == .taken)
    fixture.flush()
    #expect(try fixture.received().map(\.bytes) == [bytes])
    #expect(fixture.engine.counters.copyErrors == 0)
    fixture.expectClean()
  }

  /// Results are told apart when good and bad ones are mixed over a whole ring (XSA-362, XSA-365).
  @Test(arguments: 0..<8 as Range<UInt64>)
  func xsa365_everyCopyHasItsOwnResult(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let fixture = try RxFixture()
    var expected: [[UInt8]] = []
    var posted = 0
    var frames: [[UInt8]] = []
    while true {
      let slots = Int.random(in: 1...4, using: &numbers)
      guard posted + slots <= 256 else { break }
      let bytes = RxFrameBytes.frame(numbers.next(), byteCount: slots * 4096 - 100)
      var isGood = true
      for _ in 0..<slots {
        let isBad = numbers.chance(1, in: 5)
        if isBad { isGood = false }
        fixture.post(1, isBad ? (numbers.chance(1, in: 2) ? .bad : .readOnly) : .granted)
      }
      posted += slots
      frames.append(bytes)
      if isGood { expected.append(bytes) }
    }
    for bytes in frames { #expect(try fixture.deliver(bytes) == .taken) }
    #expect(fixture.host.copyCallCount == 0)
    fixture.flush()
    #expect(fixture.host.copyCallCount == 1, "one batch for all packets of a flush")
    #expect(try fixture.received().map(\.bytes) == expected)
    #expect(fixture.frontend.failedCount == frames.count - expected.count)
    fixture.expectClean()
  }

  /// What the guest writes into a slot after it was taken changes nothing (XSA-155).
  @Test func trap1_aSlotIsReadOnce() throws {
    let fixture = try RxFixture()
    fixture.post(2)
    let bytes = RxFrameBytes.frame(1, byteCount: 3000)
    #expect(try fixture.deliver(bytes) == .taken)
    // Both requests now name the second page and another id.
    let other = fixture.frontend.reference(ofPage: 1)
    for slot in [240, 241] {
      fixture.setRingWord(0xFFFF, at: 64 + slot * 8)
      fixture.setRingWord(other.rawValue, at: 64 + slot * 8 + 4)
    }
    fixture.flush()
    #expect(fixture.host.guest.memory.copyBytes(at: 0, count: 3000) == bytes)
    #expect(try fixture.received().map(\.bytes) == [bytes])
    fixture.expectClean()
  }

  /// Pages granted for good are filled without the hypervisor; those that may only be read are not used so.
  @Test func stagedPagesAreFilledDirectly() throws {
    let fixture = try RxFixture(headroom: 256)
    for page in [0, 2, 3] { fixture.host.stage(fixture.frontend.reference(ofPage: page)) }
    fixture.host.stage(fixture.frontend.reference(ofPage: 4), isWritable: false)
    fixture.post(6)
    let frames = [1, 2].map { RxFrameBytes.frame($0, byteCount: 3840 + 77) }
    for bytes in frames { #expect(try fixture.deliver(bytes) == .taken) }
    fixture.flush()
    #expect(try fixture.received().map(\.bytes) == frames)
    let counters = fixture.engine.counters
    // Pages 0 and 2, page 3; the pages 1 and 4 hold an extra info each, page 5 was never staged.
    #expect(counters.stagedCopies == 3 && counters.grantCopies == 1)
    fixture.expectClean()
  }

  /// A read-only staged page is filled by grant copy instead, or not at all if its grant forbids that.
  @Test func stagedPagesForReadingAreNotWritten() throws {
    let fixture = try RxFixture()
    fixture.host.stage(fixture.frontend.reference(ofPage: 0), isWritable: false)
    fixture.post(1)
    let bytes = RxFrameBytes.frame(1, byteCount: 99)
    #expect(try fixture.deliver(bytes) == .taken)
    fixture.flush()
    #expect(try fixture.received().map(\.bytes) == [bytes])
    #expect(fixture.engine.counters.stagedCopies == 0 && fixture.engine.counters.grantCopies == 1)
    fixture.expectClean()
  }
}
