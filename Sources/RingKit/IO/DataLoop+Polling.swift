import CUring

/// Looking for work for a while before sleeping, so that neither the guest's event nor the kernel's wake-up is
/// waited for.
///
/// Within the window queues are run without asking their frontends for events; when it ends each of them is
/// run once more and asks, which finds what came in between (ring.h, RING_FINAL_CHECK_FOR_REQUESTS).
extension DataLoop {
  /// The shortest window that is worth it.
  @usableFromInline static var shortestPollNanoseconds: UInt64 { 10_000 }

  /// How long the loop looks for work now before it sleeps: 0 up to the configured bound.
  public var pollWindowNanoseconds: UInt64 { unsafe state.pointee.window }

  /// Times a queue's work was found by looking: each an event that its frontend did not have to send.
  public var pollFindingCount: UInt64 { unsafe state.pointee.pollFindings }

  /// Changes the longest time to look for work before sleeping, as ``DataThreadConfiguration/pollNanoseconds``.
  public func setPolling(nanoseconds: UInt64) {
    let limit = Self.pollLimit(nanoseconds)
    unsafe state.pointee.pollLimit = limit
    unsafe state.pointee.window = min(state.pointee.window, limit)
    guard limit == 0 else { return }
    unsafe state.pointee.idleSince = 0
    // Nobody looks any more: who was to be found asks for events in this turn.
    _ = armPolled()
  }

  /// The bound that is kept.
  @usableFromInline
  static func pollLimit(_ nanoseconds: UInt64) -> UInt64 {
    Queue.canPoll ? min(nanoseconds, DataThreadConfiguration.longestPollNanoseconds) : 0
  }

  /// Looks for work until there is some or the window is over; then has the queues ask for events. True when
  /// there is something to do.
  @inlinable
  func poll() -> Bool {
    do {
      try ring.submit()
    } catch {
      fail(error)
      return true
    }
    var time = MonotonicClock.nowNanoseconds()
    if unsafe state.pointee.idleSince == 0 { unsafe state.pointee.idleSince = time }
    let end = unsafe state.pointee.idleSince &+ state.pointee.window
    while true {
      if ring.hasCompletions || findWork() { return true }
      if time >= end { break }
      Self.relax()
      time = MonotonicClock.nowNanoseconds()
    }
    return armPolled()
  }

  @usableFromInline
  static func relax() { ringback_relax() }

  /// Makes the polled queues that have work runnable.
  @inlinable
  func findWork() -> Bool {
    var isFound = false
    for position in 0..<table.polledCount {
      let index = table.polledSlot(position)
      guard unsafe table.slots[index].isUnarmed, let queue = unsafe table.slots[index].queue else { continue }
      // Sound: the table holds a reference until the end of a turn at least.
      guard unsafe queue._withUnsafeGuaranteedRef({ $0.hasWork() }) else { continue }
      isFound = true
      unsafe state.pointee.pollFindings &+= 1
      unsafe state.pointee.sawWork = true
      table.makeRunnable(index)
    }
    return isFound
  }

  /// Ends the window: the polled queues ask for events in the next turn. False when there are none.
  @inlinable
  func armPolled() -> Bool {
    for position in 0..<table.polledCount {
      let index = table.polledSlot(position)
      unsafe table.slots[index].isListed = false
      guard unsafe table.slots[index].isUnarmed, unsafe table.slots[index].queue != nil else { continue }
      unsafe table.slots[index].mustArm = true
      table.makeRunnable(index)
    }
    unsafe table.state.pointee.polledCount = 0
    return table.runnableCount > 0
  }

  /// Turns in a row after which a queue still has work, and has asked for no event: it may not take it (its
  /// disk's rate is limited, say) and is not to be found again and again.
  @usableFromInline static var fruitlessLimit: UInt8 { 4 }

  /// Deals with a queue that has done what it could and asked for no event: it is polled from here on, or asks
  /// in the next turn when it is slowed down, cannot be polled, or has work that it may not take.
  @inlinable
  func keepUnarmed(_ index: Int, delayNanoseconds: UInt64) {
    unsafe table.slots[index].isUnarmed = true
    let hasWork = unsafe table.slots[index].queue?._withUnsafeGuaranteedRef { $0.hasWork() } ?? false
    if !hasWork {
      unsafe table.slots[index].fruitless = 0
      if delayNanoseconds == 0 && table.list(index) { return }
    } else if unsafe delayNanoseconds == 0 && table.slots[index].fruitless < Self.fruitlessLimit {
      // Most likely it came just now.
      unsafe table.slots[index].fruitless += 1
      table.makeRunnable(index)
      return
    }
    unsafe table.slots[index].fruitless = 0
    unsafe table.slots[index].mustArm = true
    table.makeRunnable(index)
  }

  /// Takes note, at the end of a turn, of work that came: the window doubles if that was later than the window
  /// and yet within the bound, and halves if it was later than that.
  @inlinable
  func noteWork() {
    unsafe state.pointee.sawWork = false
    let since = unsafe state.pointee.idleSince
    guard since != 0 else { return }
    unsafe state.pointee.idleSince = 0
    let idle = now > since ? now - since : 0
    let (window, limit) = unsafe (state.pointee.window, state.pointee.pollLimit)
    if idle > limit {
      unsafe state.pointee.window = window / 2 < Self.shortestPollNanoseconds ? 0 : window / 2
    } else if idle > window {
      unsafe state.pointee.window = min(max(window * 2, Self.shortestPollNanoseconds), limit)
    }
  }
}
