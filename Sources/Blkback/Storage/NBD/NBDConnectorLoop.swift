import RingKit

/// The inside of a connector's thread.
final class NBDConnectorLoop {
  /// Longest time for one attempt, in nanoseconds.
  static let attemptNanoseconds: UInt64 = 5_000_000_000
  /// Shortest and longest pause between attempts.
  static let pauseNanoseconds: ClosedRange<UInt64> = 50_000_000...2_000_000_000
  /// A connection lost sooner than this after it was made counts as a failed attempt.
  static let settledNanoseconds: UInt64 = 1_000_000_000

  private struct Wish {
    let reply: Mailbox<NBDNews>
    let patience: NBDPatience
  }

  private let inbox: Mailbox<NBDConnector.Message>
  private let address: NBDAddress
  private let name: String
  private let server: (any NBDServerProcess)?
  private let report: @Sendable (DeviceSeverity, String) -> Void
  private var wishes: [Wish] = []
  private var attempt: NBDHandle?
  /// When the attempt under way ends, or the next one begins.
  private var deadline: UInt64 = 0
  private var failureCount = 0
  private var connectedAt: UInt64?
  private var expectedByteCount: UInt64?
  /// True once the present trouble was told.
  private var isTroubleTold = false
  /// True once it was told why it does not end.
  private var isFailureTold = false
  private var isStopping = false

  init(
    inbox: Mailbox<NBDConnector.Message>, address: NBDAddress, name: String, server: (any NBDServerProcess)?,
    report: @escaping @Sendable (DeviceSeverity, String) -> Void
  ) {
    self.inbox = inbox
    self.address = address
    self.name = name
    self.server = server
    self.report = report
  }

  /// Serves wishes until it is told to stop.
  func run() {
    var poll = DescriptorPoll()
    while true {
      for message in inbox.take() { take(message) }
      if isStopping { break }
      hearServer()
      if attempt == nil, !wishes.isEmpty, MonotonicClock.nowNanoseconds() >= deadline { begin() }
      if let attempt, MonotonicClock.nowNanoseconds() >= deadline {
        fail(attempt, VbdError("\(name): no answer within 5 s"))
      }
      // Both may have settled at once.
      if attempt.map({ $0.isReady || $0.isDead }) ?? false {
        settle(nil)
        continue
      }
      var wanted = [(descriptor: inbox.descriptor, writable: false)]
      if let descriptor = server?.descriptor { wanted.append((descriptor, false)) }
      if let attempt { wanted.append((attempt.descriptor, attempt.waitsForWriting)) }
      poll.set(wanted)
      do throws(SystemError) {
        let ready = try poll.wait(timeoutMilliseconds: pause())
        if let attempt, ready.contains(attempt.descriptor) { advance(attempt) }
      } catch {
        report(.failure, "\(name): \(error); this disk is not connected again")
        break
      }
    }
    attempt = nil
    server?.stop()
  }

  private func take(_ message: NBDConnector.Message) {
    switch message {
    case .connect(let reply, let patience, let reason):
      if let reason {
        let end = server?.listen()?.description ?? "\(name): \(reason)"
        report(.warning, "\(end); connecting again, requests wait meanwhile")
        isTroubleTold = true
      }
      if attempt == nil && wishes.isEmpty {
        let now = MonotonicClock.nowNanoseconds()
        if let connectedAt, now < connectedAt + Self.settledNanoseconds {
          postpone()
        } else {
          failureCount = 0
          deadline = now
        }
      }
      wishes.append(Wish(reply: reply, patience: patience))
    case .withdraw(let reply):
      if wishes.first?.reply === reply { attempt = nil }
      wishes.removeAll { $0.reply === reply }
    case .expect(let byteCount):
      expectedByteCount = byteCount
    case .stop:
      isStopping = true
    }
  }

  /// A server that ends takes the attempt with it.
  private func hearServer() {
    guard let end = server?.listen() else { return }
    if let attempt {
      fail(attempt, end)
    } else if !isTroubleTold {
      report(.warning, "\(end); it is started again when it is needed")
      isTroubleTold = true
    }
  }

  private func begin() {
    deadline = MonotonicClock.nowNanoseconds() + Self.attemptNanoseconds
    do throws(VbdError) {
      try server?.start()
      do throws(NBDError) {
        let handle = try NBDHandle()
        attempt = handle
        try handle.connect(to: address)
      } catch {
        throw VbdError("\(name): \(error)")
      }
    } catch {
      fail(attempt, error)
    }
  }

  private func advance(_ handle: NBDHandle) {
    do throws(NBDError) {
      if handle.waitsForReading && handle.isReadable {
        try handle.becameReadable()
      } else if handle.waitsForWriting {
        try handle.becameWritable()
      }
      settle(nil)
    } catch {
      settle(error)
    }
  }

  /// Looks whether the attempt came to an end.
  private func settle(_ trouble: NBDError?) {
    guard let handle = attempt else { return }
    if handle.isReady {
      succeed(handle)
    } else if handle.isDead || trouble != nil {
      // A server that ended says why; that tells more than a closed connection.
      let end = server?.listen()
      let words = trouble?.description ?? "the server closed the connection"
      fail(handle, end ?? VbdError("\(name): \(words)"))
    }
  }

  private func succeed(_ handle: NBDHandle) {
    attempt = nil
    let wish = wishes.removeFirst()
    do throws(NBDError) {
      let export = try handle.export()
      handle.watchPeer()
      connectedAt = MonotonicClock.nowNanoseconds()
      if let expectedByteCount, expectedByteCount != export.byteCount, wish.patience == .endless {
        let error = VbdError(
          "\(name): the server now has \(export.byteCount) bytes instead of \(expectedByteCount): it is not"
            + " the same disk, so requests fail from now on; detach it and correct the server")
        report(.failure, error.description)
        wish.reply.post(.unusable(error))
        return
      }
      if isTroubleTold { report(.information, "\(name): connected again") }
      (isTroubleTold, isFailureTold) = (false, false)
      wish.reply.post(.connected(handle, export))
    } catch {
      wishes.insert(wish, at: 0)
      fail(handle, VbdError("\(name): \(error)"))
    }
  }

  private func fail(_ handle: NBDHandle?, _ error: VbdError) {
    handle?.shutDown()
    attempt = nil
    postpone()
    guard let wish = wishes.first else { return }
    if case .once(let end) = wish.patience {
      if let server, server.mayPass, deadline < end { return }
      wishes.removeFirst()
      deadline = 0
      wish.reply.post(.failed(error))
    } else if !isFailureTold {
      report(.warning, "\(error); trying again until it answers, requests wait meanwhile")
      (isTroubleTold, isFailureTold) = (true, true)
    }
  }

  private func postpone() {
    let doubled = Self.pauseNanoseconds.lowerBound << UInt64(min(failureCount, 10))
    failureCount += 1
    deadline = MonotonicClock.nowNanoseconds() + min(doubled, Self.pauseNanoseconds.upperBound)
  }

  /// Milliseconds to the next thing to do without being asked; nil when there is none.
  private func pause() -> Int32? {
    guard attempt != nil || !wishes.isEmpty else { return nil }
    let now = MonotonicClock.nowNanoseconds()
    return deadline <= now ? 0 : Int32((deadline - now) / 1_000_000 + 1)
  }
}
