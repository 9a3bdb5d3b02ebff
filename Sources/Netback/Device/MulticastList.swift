import RingKit
import Synchronization

/// The multicast filter of an interface, over all of its queues: requests to change it come on any of them.
public final class MulticastList: Sendable {
  private let filter = Mutex(MulticastFilter())
  // Spares interfaces that do not filter the lock.
  private let isActive = Atomic(false)

  /// A filter that lets everything pass.
  init() {}

  /// Begins anew for a frontend that has just connected.
  func reset(isActive: Bool) {
    filter.withLock { $0.reset() }
    setActive(isActive)
  }

  /// Whether the frontend controls what it gets.
  func setActive(_ isActive: Bool) {
    filter.withLock { $0.isActive = isActive }
    self.isActive.store(isActive, ordering: .releasing)
  }

  /// Adds or removes an address; false when there is no room.
  func change(_ address: EthernetAddress, isAdded: Bool) -> Bool {
    filter.withLock { $0.change(address, isAdded: isAdded) }
  }

  /// Whether the frontend wants a frame to this address.
  func accepts(_ address: EthernetAddress) -> Bool {
    guard address.isMulticast, isActive.load(ordering: .acquiring) else { return true }
    return filter.withLock { $0.accepts(address) }
  }
}
