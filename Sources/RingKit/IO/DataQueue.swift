/// What a data thread drives: one ring of one device. All calls come on the thread that owns the queue.
///
/// Each of the three is bounded work. None may block; all may prepare requests on the loop's ring.
public protocol DataQueue: AnyObject, SendableMetatype {
  /// A port of its was pending and is masked now; ``run(now:)`` follows in the same turn.
  func kicked()

  /// A request it prepared with `QueueKey.token(_:)` ended: bytes moved, or a negative error number.
  /// ``run(now:)`` follows in the same turn.
  func completed(token: UInt32, result: Int32)

  /// A bounded share of its work, at `now` nanoseconds of CLOCK_MONOTONIC.
  func run(now: UInt64) -> QueueTurn

  /// Whether queues of this kind can be polled: asked for work with ``hasWork()``, and run without asking for
  /// events.
  static var canPoll: Bool { get }

  /// Whether there is something to take, of which no event may have told. Cheap; a turn follows if so.
  func hasWork() -> Bool

  /// As ``run(now:)``; with `arms` false it does not ask the frontend for an event when it has nothing to do.
  func run(now: UInt64, arms: Bool) -> QueueTurn
}

extension DataQueue {
  /// Not unless a queue says so.
  @inlinable public static var canPoll: Bool { false }
  /// Nothing is known.
  @inlinable public func hasWork() -> Bool { false }
  /// Always asks for events.
  @inlinable public func run(now: UInt64, arms: Bool) -> QueueTurn { run(now: now) }
}

/// How a queue's turn ended.
@frozen
public enum QueueTurn: BitwiseCopyable, Sendable, Equatable {
  /// There is more to do: run again when the other queues and the completions had their turn.
  case again
  /// Nothing to do before the next kick, completion or deadline. A masked port is unmasked after so many
  /// nanoseconds: 0 at once, more to slow a guest down that kicks without a cause. The latest turn counts.
  case idle(unmaskAfterNanoseconds: UInt64)
}

/// Names a queue on its data thread; never names another one that came later to the same place.
@frozen
public struct QueueKey: BitwiseCopyable, Sendable, Hashable {
  /// Queues a thread can own.
  public static var capacity: Int { 4096 }

  @usableFromInline let index: UInt16
  @usableFromInline let generation: UInt16

  @inlinable
  init(index: UInt16, generation: UInt16) {
    self.index = index
    self.generation = generation
  }

  /// The token of a request on the thread's ring, which comes back as `token` in
  /// ``DataQueue/completed(token:result:)``.
  @inlinable
  public func token(_ token: UInt32) -> UInt64 {
    LoopToken.queue | UInt64(index) << 44 | UInt64(generation) << 32 | UInt64(token)
  }
}

/// How a loop tells completions apart: kind in bits 56...63, then a queue's index (12 bits), its generation
/// (12 bits) and its own token (32 bits).
@usableFromInline
enum LoopToken {
  @inlinable static var queue: UInt64 { 0 }
  @inlinable static var events: UInt64 { 1 << 56 }
  @inlinable static var mail: UInt64 { 2 << 56 }
  @inlinable static var timer: UInt64 { 3 << 56 }
  @inlinable static var calls: UInt64 { 5 << 56 }
  /// The completion of a request whose outcome shows elsewhere.
  @inlinable static var ignored: UInt64 { 4 << 56 }

  @inlinable static func isQueue(_ token: UInt64) -> Bool { token >> 56 == 0 }
  @inlinable static func index(_ token: UInt64) -> Int { Int(truncatingIfNeeded: token >> 44) & 0xFFF }
  @inlinable static func generation(_ token: UInt64) -> UInt16 {
    UInt16(truncatingIfNeeded: token >> 32) & 0xFFF
  }
  @inlinable static func own(_ token: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: token) }
}
