import Netback
import RingKit

@testable import Frontends

extension NetFrontendOptions {
  /// Two queues at most, and a control ring.
  static func control(queueCount: Int = 2) -> NetFrontendOptions {
    var options = NetFrontendOptions()
    options.queueCount = queueCount
    options.usesControlRing = true
    options.firstRingIndex = 0xFFFF_FFF0
    return options
  }
}

extension NetFrontend {
  /// A packet that came, with the number of its queue.
  struct Arrival {
    var queue: Int
    var packet: NetReceivedPacket
    var bytes: [UInt8]
  }

  /// The next packet on any queue but probes; its pages are posted again.
  func nextArrival() throws -> Arrival {
    while true {
      for queue in queues {
        while let packet = try queue.receiver.nextPacket() {
          let bytes = queue.receiver.bytes()
          queue.receiver.release()
          queue.receiver.post()
          try push()
          if bytes != experimentalFrame(0) {
            return Arrival(queue: queue.number, packet: packet, bytes: bytes)
          }
        }
      }
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no packet comes") }
    }
  }

  /// Lets the backend see what was placed on the control ring.
  func pushControl() throws {
    guard let control else { throw WorldFailure("there is no control ring") }
    // Whether it wants an event or not: one that is not needed does no harm.
    _ = control.push()
    try notify(control.port)
  }

  /// Waits until the control ring has an answer.
  func waitForControl() throws {
    guard let control else { throw WorldFailure("there is no control ring") }
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !control.requestEvent() {
      guard ContinuousClock.now < deadline else { throw WorldFailure("no answer to a control request") }
      var poll = DescriptorPoll()
      poll.set([(eventDescriptor, false)])
      _ = try poll.wait(timeoutMilliseconds: Int32(worldMilliseconds))
      takeEvents()
    }
  }

  /// The status of a request to stage pages, whatever it is.
  func status(adding grants: [StagingGrant], to queue: Int) throws -> NetControlStatus? {
    do throws(NetFrontendError) {
      try addGrantMapping(grants, to: queue)
      return .success
    } catch {
      guard case .refused(.addGrantMapping, let status) = error else { throw error }
      return NetControlStatus(rawValue: status)
    }
  }

  /// Takes what has come, and posts its pages again.
  func drain() throws {
    for queue in queues {
      while try queue.receiver.nextPacket() != nil {}
      queue.receiver.post()
    }
    try push()
  }

  /// Sends a frame from a queue, and waits for its answer.
  func send(_ frame: [UInt8], on number: Int = 0) throws -> NetTransmitCompletion {
    let transmitter = queues[number].transmitter
    guard try transmitter.place(frame) else { throw WorldFailure("no room to send") }
    try push()
    while true {
      if let completion = try transmitter.nextCompletion() { return completion }
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no answer") }
    }
  }
}

/// A frame of an experimental protocol that nobody answers, with a number in it.
func experimentalFrame(_ number: UInt8, byteCount: Int = 60) -> [UInt8] {
  [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 9, 0x88, 0xB5]
    + (14..<byteCount).map { UInt8(truncatingIfNeeded: $0) &* 3 &+ number }
}
