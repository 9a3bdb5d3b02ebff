import Glibc

/// The hot path. Inlinable, so that it is specialised for the queue in the module that defines it: no
/// existential call, no reference counting and no allocation for a completion or a turn.
extension DataLoop {
  /// Makes turns until the loop is stopped.
  @inlinable
  func main() {
    armEvents()
    armMail()
    while unsafe !state.pointee.isStopping { turn() }
    windDown()
  }

  /// Submits what was prepared, waits if nothing is runnable, and gives everybody who has work one turn.
  @inlinable
  func turn() {
    var isBusy = table.runnableCount > 0
    if unsafe !isBusy && state.pointee.pollLimit > 0 { isBusy = poll() }
    do {
      try ring.submitAndWait(minimum: isBusy ? 0 : 1)
    } catch {
      fail(error)
      return
    }
    unsafe state.pointee.turns &+= 1
    unsafe state.pointee.now = MonotonicClock.nowNanoseconds()
    // What a queue prepares here may complete at once: the bound keeps this turn from going on for ever.
    var budget = ring.completionCapacity
    while budget > 0, let completion = ring.nextCompletion() {
      budget -= 1
      if LoopToken.isQueue(completion.token) {
        deliver(completion)
      } else {
        deliverToLoop(completion)
      }
    }
    if unsafe state.pointee.portsReady {
      unsafe state.pointee.portsReady = false
      drainPorts()
      armEvents()
    }
    if unsafe state.pointee.mailReady {
      unsafe state.pointee.mailReady = false
      runMail()
      armMail()
    }
    if unsafe state.pointee.callsReady {
      unsafe state.pointee.callsReady = false
      drainCalls()
    }
    if unsafe table.state.pointee.earliest <= now { expire() }
    runQueues()
    if unsafe state.pointee.sawWork { noteWork() }
    if unsafe table.state.pointee.earliest < state.pointee.armed { armTimer() }
    releaseRemoved()
  }

  /// Tells a queue; nobody when the queue the request belonged to is gone.
  @inlinable
  func deliver(_ completion: IOCompletion) {
    let token = completion.token
    guard
      let index = table.find(index: LoopToken.index(token), generation: LoopToken.generation(token))
    else { return }
    // Sound: the table holds a reference until the end of the turn at least.
    unsafe table.slots[index].queue?._withUnsafeGuaranteedRef {
      $0.completed(token: LoopToken.own(token), result: completion.result)
    }
    unsafe state.pointee.sawWork = true
    table.makeRunnable(index)
  }

  /// Runs each queue that stands in the line now, once.
  @inlinable
  func runQueues() {
    let now = now
    let isPolling = unsafe state.pointee.window > 0
    for _ in 0..<table.runnableCount {
      let index = table.nextRunnable()
      guard let queue = unsafe table.slots[index].queue else { continue }
      let generation = unsafe table.slots[index].generation
      // Sound: the table holds a reference until the end of the turn at least.
      let arms = unsafe !isPolling || table.slots[index].mustArm
      unsafe table.slots[index].mustArm = false
      unsafe table.slots[index].isUnarmed = false
      let turn = unsafe queue._withUnsafeGuaranteedRef { $0.run(now: now, arms: arms) }
      // It may have removed itself.
      guard table.find(index: index, generation: generation) != nil else { continue }
      switch turn {
      case .again:
        table.makeRunnable(index)
      case .idle(let nanoseconds) where !arms:
        keepUnarmed(index, delayNanoseconds: nanoseconds)
      case .idle(let nanoseconds):
        guard unsafe table.slots[index].isMasked else { continue }
        if nanoseconds == 0 {
          unmask(index)
        } else {
          let (sum, overflow) = now.addingReportingOverflow(nanoseconds)
          let deadline = overflow ? .max - 1 : sum
          unsafe table.slots[index].unmaskAt = deadline
          table.note(deadline: deadline)
        }
      }
    }
  }

  @usableFromInline
  func deliverToLoop(_ completion: IOCompletion) {
    switch completion.token {
    case LoopToken.events:
      // An error here would come back for ever: without events the loop is of no use.
      let isBroken = completion.result < 0 || completion.result & Int32(POLLERR | POLLNVAL) != 0
      if isBroken {
        fail(SystemError(call: "poll of the event channels", errno: max(-completion.result, EIO)))
      } else {
        unsafe state.pointee.portsReady = true
      }
    case LoopToken.mail:
      if completion.result >= 0 {
        unsafe state.pointee.mailReady = true
      } else {
        fail(SystemError(call: "poll of the mailbox", errno: -completion.result))
      }
    case LoopToken.calls:
      unsafe state.pointee.callsReady = true
    case LoopToken.timer:
      unsafe state.pointee.armed = .max
    default:
      break
    }
  }
}
