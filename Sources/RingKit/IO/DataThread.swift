import Glibc
import Synchronization

/// Sizes of a data thread.
public struct DataThreadConfiguration: Sendable {
  /// Submission slots of the ring; 1...32768.
  public var ringEntries: UInt32 = 1024
  /// Bytes of the buffer pool, which bounds the data in flight that is not moved in mapped pages.
  public var poolByteCount = 32 << 20
  /// True to pin the pool and register it with the ring, which spares work on every transfer.
  public var registersPool = true
  /// The longest ``pollNanoseconds``.
  public static var longestPollNanoseconds: UInt64 { 10_000_000 }
  /// How long the thread at most looks for work after the last before it sleeps, in nanoseconds: 0 for not at
  /// all, up to ``longestPollNanoseconds`` (more is taken as that). Within this bound it adapts.
  public var pollNanoseconds: UInt64 = 0
  /// What carries the thread's I/O.
  public var engine = IOEngine.automatic
  /// Queues the thread can own, at most ``QueueKey/capacity``.
  public var queueCapacity = 512

  /// The usual sizes.
  public init() {}
}

/// A thread that owns queues and drives them with one ring (design decision 5).
///
/// This is its handle for control work, from any thread; ``DataLoop`` is its inside.
public final class DataThread<Queue: DataQueue>: Sendable {
  /// The thread's number, from 0; it is named "ringback-N": the kernel makes a /proc entry of it for each
  /// event channel (evtchn.c), so it holds no slash.
  public let number: Int
  /// What carries the thread's I/O: uring or aio.
  public let engine: IOEngine
  /// Why that is aio although the choice was left to the thread; nil otherwise.
  public let engineFallback: HostError?
  @usableFromInline let core: DataThreadCore<DataLoop<Queue>>

  /// Starts a thread and opens its ring, pool and handles there. Throws what could not be opened, in words.
  @inlinable
  public init(
    number: Int, hypervisor: any Hypervisor,
    configuration: DataThreadConfiguration = DataThreadConfiguration()
  ) throws(HostError) {
    self.number = number
    // The closure is written here, in inlinable code, so that the loop is specialised with its queue.
    let core = try DataThreadCore(number: number) { (mailbox) throws(HostError) in
      let loop = try DataLoop<Queue>(
        number: number, hypervisor: hypervisor, configuration: configuration, mailbox: mailbox)
      return (loop, OpenedEngine(engine: loop.ring.engine, fallback: loop.ring.fallbackReason))
    } run: { loop in
      loop.main()
      return loop.failure
    }
    self.core = core
    engine = core.opened.engine
    engineFallback = core.opened.fallback
  }

  /// Runs `body` on the thread, after what was handed over before. False when the thread was stopped: it will
  /// not run. Never waits.
  @discardableResult
  public func perform(_ body: @escaping @Sendable (DataLoop<Queue>) -> Void) -> Bool {
    core.mailbox.post(body)
  }

  /// Runs `body` on the thread and waits for its result; nil when the thread was stopped. For control threads
  /// only: on the data thread itself it would wait for ever, so it traps.
  public func call<Value: Sendable>(_ body: @escaping @Sendable (DataLoop<Queue>) -> Value) -> Value? {
    precondition(!core.thread.isCurrent, "the data thread would wait for itself")
    let handoff = Handoff<Value>()
    guard perform({ loop in handoff.put(body(loop)) }) else { return nil }
    return handoff.take()
  }

  /// Stops the thread after what was handed over before. Requests in flight are cancelled or awaited, ports
  /// unbound, queues let go without further calls; remove them first for an orderly end. Does not wait.
  public func stop() {
    _ = core.mailbox.post(last: true) { loop in loop.stop() }
  }

  /// Waits for the thread's end. Gives what ended it if that was not ``stop()``.
  @discardableResult
  public func join() -> SystemError? { core.join() }
}

/// Which engine a thread has, and why.
@usableFromInline
struct OpenedEngine: Sendable {
  @usableFromInline let engine: IOEngine
  @usableFromInline let fallback: HostError?

  @usableFromInline
  init(engine: IOEngine, fallback: HostError?) {
    self.engine = engine
    self.fallback = fallback
  }
}

/// The parts of a data thread that do not depend on its queues.
@usableFromInline
final class DataThreadCore<Loop>: Sendable {
  let mailbox: Mailbox<@Sendable (Loop) -> Void>
  let thread: OSThread
  @usableFromInline let opened: OpenedEngine
  private let outcome: Outcome

  private final class Outcome: Sendable {
    let failure = Mutex<SystemError?>(nil)
  }

  @usableFromInline
  init(
    number: Int,
    open: @escaping @Sendable (Mailbox<@Sendable (Loop) -> Void>) throws(HostError) -> (Loop, OpenedEngine),
    run: @escaping @Sendable (Loop) -> SystemError?
  ) throws(HostError) {
    do {
      let mailbox = try Mailbox<@Sendable (Loop) -> Void>()
      let outcome = Outcome()
      let opened = Handoff<Result<OpenedEngine, HostError>>()
      self.mailbox = mailbox
      self.outcome = outcome
      thread = try OSThread(name: "ringback-\(number)") {
        do throws(HostError) {
          let (loop, engine) = try open(mailbox)
          opened.put(.success(engine))
          let failure = run(loop)
          outcome.failure.withLock { $0 = failure }
        } catch {
          opened.put(.failure(error))
        }
      }
      switch opened.take() {
      case .success(let engine):
        self.opened = engine
      case .failure(let refusal):
        thread.join()
        throw refusal
      case nil:
        throw HostError("data thread \(number): it does not start")
      }
    } catch let error as SystemError {
      throw HostError("data thread \(number): \(error)")
    } catch let error as HostError {
      throw error
    } catch {
      throw HostError("data thread \(number): \(error)")
    }
  }

  func join() -> SystemError? {
    thread.join()
    return outcome.failure.withLock { $0 }
  }
}
