import RingKit

/// Something that may never return, done on a thread of its own.
enum PatientCall {
  /// What `body` returns, or nil when it takes longer than `seconds`. It is then left to itself: the program
  /// is to end soon.
  static func result<Value: Sendable>(
    within seconds: Int, of body: @escaping @Sendable () -> Value
  ) throws -> Value? {
    let answer = try Mailbox<Value>()
    let thread = try OSThread(name: "doctor") { answer.post(body()) }
    let deadline = MonotonicClock.nowNanoseconds() + UInt64(seconds) * 1_000_000_000
    var poll = DescriptorPoll()
    poll.set([(answer.descriptor, false)])
    while true {
      let now = MonotonicClock.nowNanoseconds()
      guard now < deadline else { return nil }
      _ = try poll.wait(timeoutMilliseconds: Int32((deadline - now) / 1_000_000) + 1)
      if let value = answer.take().first {
        thread.join()
        return value
      }
    }
  }
}
