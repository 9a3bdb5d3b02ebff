import Synchronization

/// Joins the answers of several threads to one question.
public final class Countdown<Failure: Error>: Sendable {
  private struct State {
    var waiting: Int
    var failure: Failure?
  }

  private let state: Mutex<State>
  private let done: @Sendable (Failure?) -> Void

  /// Waits for `count` answers, more than none; `done` is called once, on the thread of the last one, with
  /// the first failure.
  public init(_ count: Int, done: @escaping @Sendable (Failure?) -> Void) {
    precondition(count > 0)
    state = Mutex(State(waiting: count))
    self.done = done
  }

  /// One of the answers.
  public func answer(_ failure: Failure? = nil) {
    let (isLast, first) = state.withLock { state in
      state.waiting -= 1
      state.failure = state.failure ?? failure
      return (state.waiting == 0, state.failure)
    }
    if isLast { done(first) }
  }
}
