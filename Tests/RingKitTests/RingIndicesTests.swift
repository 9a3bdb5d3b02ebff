import Testing

@testable import RingKit

/// Every state of 8-bit counters in rings of 1 to 8 slots, on the code that runs with 32-bit ones; the
/// expectation is worked out in plain integers, without wrapping arithmetic.
struct RingIndicesTests {
  /// How far `to` lies behind `from` going up, 0...255.
  static func distance(from: UInt8, to: UInt8) -> Int { (Int(to) - Int(from) + 256) % 256 }

  /// All (rsp_prod_pvt, req_cons, req_prod): possible states are accepted as such, and each producer is
  /// judged.
  @Test(arguments: 1...8 as ClosedRange<UInt8>)
  func backendJudgesEveryProducer(slots: UInt8) {
    var wrong: [String] = []
    for response in UInt8.min...UInt8.max {
      for consumer in UInt8.min...UInt8.max {
        let unanswered = Self.distance(from: response, to: consumer)
        let start = BackIndices<UInt8>(
          slotCount: slots, requestConsumer: consumer, responseProducer: response, published: response)
        guard let start else {
          if unanswered <= slots { wrong.append("refused cons \(consumer) rsp \(response)") }
          continue
        }
        if unanswered > slots { wrong.append("allowed cons \(consumer) rsp \(response)") }
        for producer in UInt8.min...UInt8.max {
          let ahead = Self.distance(from: response, to: producer)
          let expected: RingVerdict =
            ahead > slots ? .overflow : ahead < unanswered ? .behind : .accepted
          var indices = start
          let verdict = indices.accept(producer)
          let left = expected == .accepted ? ahead - unanswered : 0
          if verdict != expected || Int(indices.unconsumed) != left {
            wrong.append("prod \(producer) cons \(consumer) rsp \(response): \(verdict)")
          }
        }
      }
    }
    #expect(wrong.isEmpty, "\(wrong.count) wrong, first: \(wrong.first ?? "")")
  }

  /// A saved position may have at most a ring of unpublished responses.
  @Test(arguments: 1...8 as ClosedRange<UInt8>)
  func backendRefusesImpossiblePublished(slots: UInt8) {
    for response in UInt8.min...UInt8.max {
      for published in UInt8.min...UInt8.max {
        let indices = BackIndices<UInt8>(
          slotCount: slots, requestConsumer: response, responseProducer: response, published: published)
        let possible = Self.distance(from: published, to: response) <= slots
        if (indices != nil) != possible { Issue.record("published \(published) rsp \(response)") }
      }
    }
  }

  /// Taking and answering steps through exactly the accepted requests, from every start.
  @Test(arguments: 1...8 as ClosedRange<UInt8>)
  func backendStepsThroughTheRing(slots: UInt8) throws {
    for start in UInt8.min...UInt8.max {
      var indices = try #require(
        BackIndices<UInt8>(
          slotCount: slots, requestConsumer: start, responseProducer: start, published: start))
      var ok = indices.take() == nil && indices.accept(start &+ slots) == .accepted
      for step in 0..<slots {
        ok = ok && indices.unconsumed == slots - step && indices.take() == start &+ step
        ok = ok && indices.unanswered == step + 1
      }
      ok = ok && indices.take() == nil
      for step in 0..<slots { ok = ok && indices.respond() == start &+ step }
      ok = ok && indices.unanswered == 0 && indices.accept(start &+ slots &+ slots) == .accepted
      indices.abandon()
      ok = ok && indices.unconsumed == 0 && indices.take() == nil
      if !ok { Issue.record("start \(start)") }
    }
  }

  /// All (rsp_cons, outstanding, rsp_prod): a backend may have answered what was pushed, and no more.
  @Test(arguments: 1...8 as ClosedRange<UInt8>)
  func frontendJudgesEveryProducer(slots: UInt8) {
    var wrong: [String] = []
    for start in UInt8.min...UInt8.max {
      var indices = FrontIndices<UInt8>(slotCount: slots, startingAt: start)
      for outstanding in 0...slots {
        if indices.free != slots - outstanding { wrong.append("free at \(start) + \(outstanding)") }
        for producer in UInt8.min...UInt8.max {
          let ahead = Self.distance(from: start, to: producer)
          let back = Self.distance(from: producer, to: start)
          let expected: RingVerdict =
            ahead <= outstanding ? .accepted : back <= slots ? .behind : .overflow
          var judged = indices
          let verdict = judged.accept(producer)
          if verdict != expected || Int(judged.unconsumed) != (expected == .accepted ? ahead : 0) {
            wrong.append("prod \(producer) cons \(start) outstanding \(outstanding): \(verdict)")
          }
        }
        guard outstanding < slots else { break }
        if indices.place() != start &+ outstanding { wrong.append("place at \(start) + \(outstanding)") }
        if indices.outstanding != outstanding { wrong.append("outstanding before the push") }
        indices.pushed = indices.requestProducer
      }
    }
    #expect(wrong.isEmpty, "\(wrong.count) wrong, first: \(wrong.first ?? "")")
  }

  /// A notification is due exactly when one of the new messages is the awaited one.
  @Test func notificationIsDueWhenTheEventIsPassed() {
    var wrong: [String] = []
    for old in stride(from: UInt8(0), through: 255, by: 15) {
      for count in 0...255 {
        let new = old &+ UInt8(count)
        for event in UInt8.min...UInt8.max {
          // Message k of the batch moves the producer to old + k; the awaited one moves it to `event`.
          let awaited = Self.distance(from: old, to: event)
          let expected = awaited >= 1 && awaited <= count
          if ringNotificationIsDue(old: old, new: new, event: event) != expected {
            wrong.append("old \(old) new \(new) event \(event)")
          }
        }
      }
    }
    #expect(wrong.isEmpty, "\(wrong.count) wrong, first: \(wrong.first ?? "")")
  }
}
