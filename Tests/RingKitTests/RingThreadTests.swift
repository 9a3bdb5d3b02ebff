import Dispatch
import Foundation
import RingKit
import Synchronization
import Testing

/// Both ends on threads of their own, sleeping whenever a final check allows it: the memory order of the real
/// machine instead of an imagined one. A lost wake-up, or a message seen before its bytes, ends it with a
/// failure.
struct RingThreadTests {
  /// An event channel in miniature; waiting has a bound.
  final class Channel: Sendable {
    let semaphore = DispatchSemaphore(value: 0)
    func notify() { semaphore.signal() }
    func wait() throws {
      guard semaphore.wait(timeout: .now() + 20) == .success else { throw LostWakeup() }
    }
  }

  struct LostWakeup: Error {}
  struct WrongMessage: Error { let number: Int }

  static let messageCount = 60_000

  /// Answers every request with its own first words, and sleeps on `kick` whenever the ring is idle.
  static func serve(_ pages: MappedPages, kick: Channel, reply: Channel) throws {
    var back = try BackRing(attaching: pages, slotByteCount: 112)
    var request = SlotCopy()
    var served = 0
    while served < messageCount {
      while back.take(into: &request) {
        guard request.uint64(at: 0) == UInt64(served), request.uint64(at: 104) == ~UInt64(served)
        else { throw WrongMessage(number: served) }
        back.respond(request, byteCount: 16)
        served += 1
        if served % 3 == 0, back.publish() { reply.notify() }
      }
      if back.publish() { reply.notify() }
      if served < messageCount, try !back.finalCheck() {
        try kick.wait()
        _ = try back.refresh()
      }
    }
  }

  static func drive(_ front: inout FrontRing, kick: Channel, reply: Channel) throws {
    var request = SlotCopy()
    var response = SlotCopy()
    var sent = 0
    var answered = 0
    while answered < messageCount {
      while front.freeSlotCount > 0 && sent < messageCount {
        request.setUInt64(UInt64(sent), at: 0)
        request.setUInt64(~UInt64(sent), at: 104)
        front.place(request)
        sent += 1
        if sent % 5 == 0, front.push() { kick.notify() }
      }
      if front.push() { kick.notify() }
      if try !front.finalCheckResponses() { try reply.wait() }
      _ = try front.refreshResponses()
      while front.takeResponse(into: &response, byteCount: 16) {
        guard response.uint64(at: 0) == UInt64(answered) else { throw WrongMessage(number: answered) }
        answered += 1
      }
    }
  }

  @Test func everyMessageArrives() throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    let kick = Channel()
    let reply = Channel()
    let failure = Mutex<(any Error)?>(nil)
    let ended = DispatchSemaphore(value: 0)
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: 0xFFFF_FFF0)
    Thread.detachNewThread {
      do { try Self.serve(pages, kick: kick, reply: reply) } catch { failure.withLock { $0 = error } }
      ended.signal()
    }
    #expect(throws: Never.self) { try Self.drive(&front, kick: kick, reply: reply) }
    #expect(ended.wait(timeout: .now() + 25) == .success)
    let backendFailure = failure.withLock { $0 }
    #expect(backendFailure == nil)
  }
}
