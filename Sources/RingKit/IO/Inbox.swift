import CUring
import Glibc
import Synchronization

/// Messages that any thread hands to the control thread, in order; readable through a descriptor.
public final class Inbox<Message: Sendable>: Sendable {
  private let messages = Mutex<[Message]>([])
  /// Readable when there are messages; does not block.
  public let descriptor: Int32

  /// An empty box.
  public init() throws(SystemError) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
    guard descriptor >= 0 else { throw SystemError(call: "eventfd", errno: errno) }
  }

  deinit { close(descriptor) }

  /// Adds a message. Never waits.
  public func post(_ message: Message) {
    let wasEmpty = messages.withLock { messages in
      messages.append(message)
      return messages.count == 1
    }
    if wasEmpty { eventfd_write(descriptor, 1) }
  }

  /// Takes all messages out.
  public func take() -> [Message] {
    var count: eventfd_t = 0
    // Sound: one counter is read into a local variable.
    _ = unsafe eventfd_read(descriptor, &count)
    return messages.withLock { messages in
      let taken = messages
      messages = []
      return taken
    }
  }
}
