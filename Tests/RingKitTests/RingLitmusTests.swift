import Foundation
import RingKit
import Synchronization
import Testing

/// The race that the full fences decide: one side publishes at the same moment as the other side makes its
/// final check. Without them each reads the other's word from before its own store now and then, and both go
/// to sleep.
struct RingLitmusTests {
  /// Two threads meet here before each moment that they share; the one that comes too late fails both.
  final class Meeting: Sendable {
    private let arrivals = Atomic<Int>(0)
    private let failed = Atomic<Bool>(false)
    private let deadline = ContinuousClock.now + .seconds(25)

    func wait() throws {
      let mine = arrivals.add(1, ordering: .acquiringAndReleasing).newValue
      let everyone = mine + mine % 2
      var spins = 0
      while arrivals.load(ordering: .acquiring) < everyone {
        spins += 1
        guard spins % 200 == 0 else { continue }
        guard !failed.load(ordering: .relaxed), ContinuousClock.now < deadline else { throw Missed() }
        sched_yield()
      }
    }

    /// Shifts one side against the other, so that over the rounds all moments meet.
    func dally(_ count: Int) { for _ in 0..<count { _ = failed.load(ordering: .relaxed) } }

    func leave() { failed.store(true, ordering: .relaxed) }
  }

  struct Missed: Error {}

  static let rounds = 65_536

  /// In each round the frontend pushes while the backend makes its final check, and then the other way round.
  @Test func publishingMeetsTheFinalCheck() throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    let meeting = Meeting()
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: 0xFFFF_FFF0)
    // What the backend's thread saw in each round; read after it ended.
    let backend = Mutex<(saw: [Bool], notified: [Bool], failure: (any Error)?)>(([], [], nil))
    let ended = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      var saw: [Bool] = []
      var notified: [Bool] = []
      do {
        var back = try BackRing(attaching: pages, slotByteCount: 112)
        var request = SlotCopy()
        for round in 0..<Self.rounds {
          try meeting.wait()
          meeting.dally(round % 128)
          saw.append(try back.finalCheck())
          try meeting.wait()
          _ = try back.refresh()
          while back.take(into: &request) { back.respond(request, byteCount: 16) }
          try meeting.wait()
          meeting.dally(round % 128)
          notified.append(back.publish())
          try meeting.wait()
        }
      } catch {
        meeting.leave()
        backend.withLock { $0.failure = error }
      }
      backend.withLock { ($0.saw, $0.notified) = (saw, notified) }
      ended.signal()
    }
    var saw: [Bool] = []
    var notified: [Bool] = []
    do {
      var response = SlotCopy()
      for round in 0..<Self.rounds {
        front.place(SlotCopy())
        try meeting.wait()
        meeting.dally(round / 128 % 128)
        notified.append(front.push())
        try meeting.wait()
        try meeting.wait()
        meeting.dally(round / 128 % 128)
        saw.append(try front.finalCheckResponses())
        try meeting.wait()
        _ = try front.refreshResponses()
        while front.takeResponse(into: &response, byteCount: 16) {}
      }
    } catch {
      meeting.leave()
      Issue.record(error)
    }
    try #require(ended.wait(timeout: .now() + 30) == .success)
    let other = backend.withLock { $0 }
    #expect(other.failure == nil)
    try #require(saw.count == Self.rounds && other.saw.count == Self.rounds)
    #expect((0..<Self.rounds).allSatisfy { other.saw[$0] || notified[$0] })
    #expect((0..<Self.rounds).allSatisfy { saw[$0] || other.notified[$0] })
  }
}
