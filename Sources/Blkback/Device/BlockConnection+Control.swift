import RingKit

/// What can be done to a connection while its rings stay: every call hands messages to the data threads, and
/// `done` is called once, from any thread.
extension BlockConnection {
  /// Stops taking requests, finishes those taken, makes durable what they wrote if `flushes`, and lets the
  /// store go. A failure is that of a flush: the queues are paused in any case.
  public func pause(flushes: Bool, done: @escaping @Sendable (VbdError?) -> Void) {
    ask({ queue, _, answer in queue.pause(flushes: flushes, onPaused: answer) }, done: done)
  }

  /// Gives the paused queues a store; they use it when they are resumed. After a failure no queue keeps it.
  public func use(
    _ store: any BlockStore, limits: BlockLimits, health: DiskHealth,
    done: @escaping @Sendable (VbdError?) -> Void
  ) {
    ask { queue, place, answer in
      do throws(VbdError) {
        queue.use(try store.openChannel(place), of: store, limits: limits, health: health)
        answer(nil)
      } catch {
        answer(error)
      }
    } done: { [self] failure in
      guard let failure else { return done(nil) }
      pause(flushes: false) { _ in done(failure) }
    }
  }

  /// Takes requests again.
  public func resume(done: @escaping @Sendable (VbdError?) -> Void) {
    ask(
      { queue, _, answer in
        queue.resume()
        answer(nil)
      }, done: done)
  }

  /// Replaces the rules for requests that come from here on.
  public func setLimits(_ limits: BlockLimits, done: @escaping @Sendable (VbdError?) -> Void) {
    ask(
      { queue, _, answer in
        queue.setLimits(limits)
        answer(nil)
      }, done: done)
  }
}
