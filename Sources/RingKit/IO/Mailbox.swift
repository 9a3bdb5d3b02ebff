import CUring
import Glibc
import Synchronization

/// Messages that any thread hands to one thread, in order, announced through a descriptor.
public final class Mailbox<Message: Sendable>: Sendable {
  private struct State {
    var messages: [Message] = []
    var isOpen = true
  }

  private let state = Mutex(State())
  /// Readable when there are messages; does not block.
  public let descriptor: Int32

  /// An empty box.
  public init() throws(SystemError) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard descriptor >= 0 else { throw SystemError(call: "eventfd", errno: errno) }
  }

  deinit { close(descriptor) }

  /// Adds a message; `last` closes the box behind it. False when it is closed: the message will not be read.
  /// Never waits.
  @discardableResult
  public func post(last: Bool = false, _ message: Message) -> Bool {
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
  public func take() -> [Message] {
    var count: eventfd_t = 0
    // Sound: one counter is read into a local variable.
    _ = unsafe eventfd_read(descriptor, &count)
    return state.withLock { state in
      let messages = state.messages
      state.messages = []
      return messages
    }
  }

  /// Accepts nothing from here on.
  public func closeForGood() { state.withLock { $0.isOpen = false } }
}
