import Blkback
import Frontends
import RingKit

/// The administrator's commands, on the usual disk of a world.
extension FrontendWorld {
  static let address = DeviceAddress(kind: "vbd", domain: guest, device: device)

  /// Pauses it; gives what went wrong.
  func pause() throws -> VbdError? { try daemon.pause(Self.address) }

  /// Resumes it.
  func resume(image: String? = nil, allowsResize: Bool = false) throws -> VbdError? {
    try daemon.resume(Self.address, image: image, allowsResize: allowsResize)
  }

  /// Looks at its size.
  func resize(allowsShrink: Bool = false) throws -> Result<UInt64, VbdError> {
    try daemon.ask(Self.address) { disk, answer in disk.resize(allowsShrink: allowsShrink) { answer($0) } }
  }

  /// Exchanges its medium.
  func changeMedium(to image: String?) throws -> VbdError? {
    try daemon.ask(Self.address) { disk, answer in disk.changeMedium(to: image) { answer($0) } }
  }

  /// A node of its backend.
  func node(_ name: String) throws -> String? { try toolstack.read("\(backendPath())/\(name)") }

  /// Sends the backend an event and waits until its queue has looked at the ring for it.
  func kickAndWait(_ frontend: BlockFrontend) throws {
    func kicks() throws -> UInt64 {
      try daemon.ask(Self.address) { disk, answer in
        answer(disk.connectionNumbers?.queues.first?.snapshot.counters.kicks ?? 0)
      }
    }
    let before = try kicks()
    try frontend.kick(try frontend.queue())
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try kicks() == before {
      guard .now < deadline else { throw WorldFailure("the queue does not hear its event") }
    }
  }
}

extension FrontendDaemon {
  /// Pauses a disk, from any thread; gives what went wrong.
  func pause(_ disk: DeviceAddress) throws -> VbdError? {
    try ask(disk) { disk, answer in disk.pause { answer($0) } }
  }

  /// Resumes it.
  func resume(_ disk: DeviceAddress, image: String?, allowsResize: Bool = false) throws -> VbdError? {
    try ask(disk) { disk, answer in disk.resume(image: image, allowsResize: allowsResize) { answer($0) } }
  }
}
