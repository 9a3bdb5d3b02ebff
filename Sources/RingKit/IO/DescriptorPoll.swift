import Glibc

/// Waits for any of a few descriptors: the control thread's way (data threads wait in their io_uring).
@safe
public struct DescriptorPoll {
  private var descriptors: [pollfd] = []

  /// Waits for nothing yet.
  public init() {}

  /// Replaces what is waited for: readable always, writable where asked.
  public mutating func set(_ wanted: [(descriptor: Int32, writable: Bool)]) {
    descriptors = wanted.map {
      pollfd(fd: $0.descriptor, events: Int16(POLLIN) | ($0.writable ? Int16(POLLOUT) : 0), revents: 0)
    }
  }

  /// Waits until some are ready or `timeoutMilliseconds` have passed (nil: for ever); returns the ready ones.
  /// A hung-up descriptor counts as ready, so that reading it reports the end.
  public mutating func wait(timeoutMilliseconds: Int32?) throws(SystemError) -> [Int32] {
    // Sound: the array is ours for the call and its count is the one passed.
    let count = unsafe descriptors.withUnsafeMutableBufferPointer { buffer in
      unsafe poll(buffer.baseAddress, nfds_t(buffer.count), timeoutMilliseconds ?? -1)
    }
    if count < 0 {
      guard errno == EINTR else { throw SystemError(call: "poll", errno: errno) }
      return []
    }
    return descriptors.filter { $0.revents != 0 }.map(\.fd)
  }
}
