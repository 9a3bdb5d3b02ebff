import CUring
import Glibc
import Synchronization

/// Work that other threads hand to a loop, in order; behind an eventfd which the loop's ring reads.
@usableFromInline
final class Mailbox<Owner>: Sendable {
  typealias Message = @Sendable (Owner) -> Void

  private struct State {
    var messages: [Message] = []
    var isOpen = true
  }

  private let state = Mutex(State())
  /// Readable when there are messages. Blocking, or a read through io_uring would fail instead of waiting.
  let descriptor: Int32

  init() throws(SystemError) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    guard descriptor >= 0 else { throw SystemError(call: "eventfd", errno: errno) }
  }

  deinit { close(descriptor) }

  /// Adds a message; `last` closes the box behind it. False when it is closed: the message will not run.
  func post(last: Bool = false, _ message: @escaping Message) -> Bool {
    let (accepted, wasEmpty) = state.withLock { state in
      guard state.isOpen else { return (false, false) }
      let wasEmpty = state.messages.isEmpty
      state.messages.append(message)
      state.isOpen = !last
      return (true, wasEmpty)
    }
    // One signal announces all messages up to the next take().
    if accepted && wasEmpty { eventfd_write(descriptor, 1) }
    return accepted
  }

  /// Takes all messages out.
  func take() -> [Message] {
    state.withLock { state in
      let messages = state.messages
      state.messages = []
      return messages
    }
  }

  /// Accepts nothing from here on.
  func closeForGood() { state.withLock { $0.isOpen = false } }
}
