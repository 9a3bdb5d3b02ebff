import RingKit
import Synchronization

/// What comes of a wish for a connection.
enum NBDNews: Sendable {
  /// A connection that is ready for commands.
  case connected(NBDHandle, NBDExport)
  /// One attempt failed, and no other follows.
  case failed(VbdError)
  /// The server is there and serves something else: what waits for it can never be done.
  case unusable(VbdError)
  /// Nothing, to have the box looked at.
  case nothing
}

/// How long somebody waits for a connection.
enum NBDPatience: Sendable, Equatable {
  /// Until it is there.
  case endless
  /// Until one attempt failed. What will pass by itself is tried again until the time given.
  case once(untilNanoseconds: UInt64)
}

/// A program that serves a disk's image and is started for it. Belongs to the connector's thread.
protocol NBDServerProcess: AnyObject {
  /// Starts it if it does not run.
  func start() throws(VbdError)
  /// Readable when it has something to say, or ended; nil while it does not run.
  var descriptor: Int32? { get }
  /// Takes what it says. Gives how it ended in words, once; nil while it runs.
  func listen() -> VbdError?
  /// True when it ended for a reason that may be gone soon.
  var mayPass: Bool { get }
  /// Ends it in order, and waits for that for a bounded time.
  func stop()
}

/// Makes the connections of one disk, on a thread of its own: looking up names, TLS and starting a server all
/// take time that no data thread has. Holds the server's process, which ends with the thread.
final class NBDConnector: Sendable {
  /// What it can be told.
  enum Message: Sendable {
    case connect(reply: Mailbox<NBDNews>, patience: NBDPatience, reason: String?)
    case withdraw(reply: Mailbox<NBDNews>)
    case expect(byteCount: UInt64)
    case stop
  }

  private let inbox: Mailbox<Message>
  private let thread: OSThread
  private let end = ConnectorEnd()

  /// Starts the thread; nothing is connected before somebody asks for it.
  init(
    address: NBDAddress, name: String, report: @escaping @Sendable (DeviceSeverity, String) -> Void,
    server: @escaping @Sendable () -> (any NBDServerProcess)?
  ) throws(VbdError) {
    do throws(SystemError) {
      let inbox = try Mailbox<Message>()
      self.inbox = inbox
      thread = try OSThread(name: "ringback-nbd") { [end] in
        let loop = NBDConnectorLoop(
          inbox: inbox, address: address, name: name, server: server(), report: report)
        loop.run()
        end.reach()
      }
    } catch {
      throw VbdError("\(name): \(error)")
    }
  }

  /// Asks for a connection; the news come into `reply`. `reason` says why the last one was lost.
  func connect(_ reply: Mailbox<NBDNews>, patience: NBDPatience = .endless, reason: String? = nil) {
    inbox.post(.connect(reply: reply, patience: patience, reason: reason))
  }

  /// Takes a wish back.
  func withdraw(_ reply: Mailbox<NBDNews>) { inbox.post(.withdraw(reply: reply)) }

  /// From now on only an export of this size is the disk.
  func expect(byteCount: UInt64) { inbox.post(.expect(byteCount: byteCount)) }

  /// Ends everything, without waiting for it.
  func stop() { inbox.post(last: true, .stop) }

  /// Ends everything; `done` is called once, on any thread, when the server's process has ended too.
  func stop(done: @escaping @Sendable () -> Void) {
    end.whenReached(done)
    stop()
  }
}

/// The end of a connector's thread, and who waits for it.
private final class ConnectorEnd: Sendable {
  private struct State {
    var isReached = false
    var waiting: [@Sendable () -> Void] = []
  }

  private let state = Mutex(State())

  func reach() {
    let waiting = state.withLock { state in
      state.isReached = true
      defer { state.waiting = [] }
      return state.waiting
    }
    for done in waiting { done() }
  }

  func whenReached(_ done: @escaping @Sendable () -> Void) {
    let isReached = state.withLock { state in
      if !state.isReached { state.waiting.append(done) }
      return state.isReached
    }
    if isReached { done() }
  }
}
