import CUring
import Glibc

/// A TAP with several queues: a network interface whose frames this program reads and writes.
///
/// It is known by its index, not by its name: hotplug scripts rename it, move it into a bridge and set it up
/// (net.md 3.3). It is made with its carrier off and, unless ``setPersistent(_:)`` says otherwise, goes away
/// with this object; a program that another thread is just starting holds its descriptors a moment longer, so
/// that only ``delete()`` is certain at once. The thread that made it, the control thread, calls everything here; data threads get a
/// ``TapQueue`` each. Kernels from Linux 6.1 on are known to serve.
public final class TapDevice {
  /// Queues a TAP can have (drivers/net/tun.c, MAX_TAP_QUEUES).
  public static let queueLimit = 256
  /// Frames the kernel keeps for each queue. Its own 1000, of up to 64 KiB each, are what a guest that does not
  /// read could hold of the host's memory.
  public static let usualTransmitQueueLength: UInt32 = 256

  /// Names the interface in its network namespace for as long as it exists.
  public let index: Int32
  /// Open queues, 1...256.
  public private(set) var queues: [TapQueue]
  /// Whether frames can pass: what ``setCarrier(_:)`` said last, at first not.
  public private(set) var hasCarrier = false
  private let control: LinkControl
  private let namespace: NetworkNamespace.Identity?
  private let knowsNoCarrier: Bool
  private var label: String

  /// Makes a TAP with one queue; `name` has 1...15 bytes and no other interface has it.
  public init(
    creating name: String, transmitQueueLength: UInt32 = TapDevice.usualTransmitQueueLength
  ) throws(LinkError) {
    guard TapName.isValid(name) else { throw LinkError(link: name, reason: .badName) }
    let control = try LinkControl()
    self.control = control
    namespace = NetworkNamespace.currentIdentity
    label = name
    let queue = TapQueue(descriptor: try TunControl.open(link: name))
    let tun = TunControl(descriptor: queue.descriptor)
    let known = tun.features & TunControl.noCarrier
    knowsNoCarrier = known != 0
    // Exclusive: the same call would open one more queue of a TAP that somebody else has.
    let failure = tun.attach(name: name, flags: TunControl.tapFlags | TunControl.exclusive | known)
    if failure == EBUSY {
      throw LinkError(link: name, reason: .taken(try? control.status(name: name)))
    }
    guard failure == 0 else { throw LinkError(link: name, call: "TUNSETIFF", errno: failure) }
    // By the name it has now: scripts wait for interfaces.
    guard let made = try control.status(name: tun.name ?? name), made.tun?.isTap == true else {
      throw LinkError(link: name, reason: .gone)
    }
    index = made.index
    queues = [queue]
    try prepare()
    try control.setTransmitQueueLength(transmitQueueLength, of: index)
  }

  /// Takes over a persistent TAP that no program has open; offloads and carrier are off afterwards, name,
  /// address, bridge and alias stay.
  public init(attaching index: Int32) throws(LinkError) {
    let control = try LinkControl()
    self.control = control
    namespace = NetworkNamespace.currentIdentity
    let found = try control.status(index: index)
    guard let tun = found.tun, tun.isTap, tun.isMultiQueue else {
      let kind = found.tun.map { $0.isTap ? "a TAP of one queue" : "a TUN device" }
      let other = found.kind.isEmpty ? "an interface of hardware" : "an interface of the kind \(found.kind)"
      throw LinkError(link: found.name, reason: .notOurKind(kind ?? other))
    }
    if let count = tun.queueCount, count > 0 {
      throw LinkError(link: found.name, reason: .inUse(queueCount: count))
    }
    label = found.name
    self.index = index
    let (queue, known) = try Self.openQueue(of: index, control, isOn: false) { () throws(LinkError) in
      try control.status(index: index).name
    }
    knowsNoCarrier = known
    queues = [queue]
    try prepare()
  }

  /// What every TAP needs, whoever made it: headers of 12 bytes in little-endian order, no offloads, no carrier.
  private func prepare() throws(LinkError) {
    let size = Int32(TapQueue.headerByteCount)
    try check(tun.set(.headerByteCount, to: size), "TUNSETVNETHDRSZ")
    try check(tun.set(.headerIsLittleEndian, to: 1), "TUNSETVNETLE")
    try setOffloads([])
    try setCarrier(false)
  }

  private var tun: TunControl { TunControl(descriptor: queues[0].descriptor) }

  private func check(_ failure: Int32, _ call: String) throws(LinkError) {
    if failure != 0 { throw LinkError(link: label, call: call, errno: failure) }
  }

  // MARK: State

  /// Its name now; throws `.gone` once it was deleted.
  public var name: String {
    get throws(LinkError) {
      guard let name = tun.name else { throw LinkError(link: label, call: "TUNGETIFF", errno: errno) }
      label = name
      return name
    }
  }

  /// What the kernel says of it now: its MTU, whether it is up, its bridge.
  public var status: LinkStatus {
    get throws(LinkError) { try control.status(index: index) }
  }

  /// Bytes of payload in a frame, at most.
  public var mtu: UInt32 { get throws(LinkError) { try status.mtu } }

  /// Whether it was set up; what is written while it is down is lost with -EIO.
  public var isUp: Bool { get throws(LinkError) { try status.isUp } }

  /// Sets what the kernel may leave to this program, and cuts the other things short itself; the network stack
  /// takes it into account for frames from now on, those in the queues stay as they are.
  public func setOffloads(_ offloads: TapOffloads) throws(LinkError) {
    guard offloads.isEmpty || offloads.contains(.checksum) else {
      throw LinkError(
        link: label,
        reason: .unknownToKernel("segmentation cannot be left to us without checksums; ask for both"))
    }
    let failure = tun.set(.offloads, to: Int32(bitPattern: offloads.rawValue))
    guard failure != EINVAL else {
      throw LinkError(
        link: label,
        reason: .unknownToKernel(
          "this kernel does not know all of the offloads 0x\(String(offloads.rawValue, radix: 16));"
            + " segmentation of UDP needs Linux 6.2"))
    }
    try check(failure, "TUNSETOFFLOAD")
  }

  /// Turns the carrier on or off: without one, a bridge sends nothing here.
  public func setCarrier(_ isOn: Bool) throws(LinkError) {
    try check(tun.set(.carrier, to: isOn ? 1 : 0), "TUNSETCARRIER")
    hasCarrier = isOn
  }

  /// Lets it stay when this process ends, however that happens, or no longer.
  public func setPersistent(_ isPersistent: Bool) throws(LinkError) {
    try check(tun.set(.isPersistent, to: isPersistent ? 1 : 0), "TUNSETPERSIST")
  }

  /// Gives it a text by which ``leftovers(aliasPrefix:)`` finds it, up to 255 bytes.
  public func setAlias(_ alias: String) throws(LinkError) { try control.setAlias(alias, of: index) }

  /// Sets the largest payload of a frame, 68...65521 bytes.
  public func setMTU(_ mtu: UInt32) throws(LinkError) { try control.setMTU(mtu, of: index) }

  /// Sets how many frames the kernel keeps for each queue.
  public func setTransmitQueueLength(_ frameCount: UInt32) throws(LinkError) {
    try control.setTransmitQueueLength(frameCount, of: index)
  }

  /// Sets the six bytes of its Ethernet address; scripts set one of their own.
  public func setAddress(_ address: [UInt8]) throws(LinkError) { try control.setAddress(address, of: index) }

  /// Sets it up or down, where no script does.
  public func setUp(_ isUp: Bool) throws(LinkError) { try control.setUp(isUp, of: index) }

  /// Deletes it now, persistent or not; its queues end with -EBADFD.
  public func delete() throws(LinkError) { try control.delete(index) }

  // MARK: Queues

  /// Opens one more queue; at most 256 in all.
  public func addQueue() throws(LinkError) -> TapQueue {
    guard queues.count < Self.queueLimit else { throw LinkError(link: label, reason: .tooManyQueues) }
    // The kernel looks the name up in the thread's namespace, and would make an interface where it is not.
    guard namespace == NetworkNamespace.currentIdentity else {
      throw LinkError(link: label, reason: .otherNamespace)
    }
    let (queue, _) = try Self.openQueue(of: index, control, isOn: hasCarrier) { () throws(LinkError) in
      try name
    }
    queues.append(queue)
    // A kernel that does not know IFF_NO_CARRIER has just turned it on.
    if !hasCarrier && !knowsNoCarrier { try setCarrier(false) }
    return queue
  }

  /// Takes a queue away: it gets no frame any more, and is closed once nobody holds it. One of them stays.
  public func removeQueue(_ queue: TapQueue) {
    guard queues.count > 1, let place = queues.firstIndex(where: { $0 === queue }) else { return }
    TunControl(descriptor: queue.descriptor).detachQueue()
    queues.remove(at: place)
  }

  /// Opens or takes away queues until there are `count`, 1...256; those that stay are the first.
  public func setQueueCount(_ count: Int) throws(LinkError) {
    guard (1...Self.queueLimit).contains(count) else {
      throw LinkError(link: label, reason: .tooManyQueues)
    }
    while queues.count < count { _ = try addQueue() }
    while queues.count > count, let last = queues.last { removeQueue(last) }
  }

  /// Opens a queue of the interface `index`, which may be renamed meanwhile; also whether the kernel knows
  /// IFF_NO_CARRIER.
  private static func openQueue(
    of index: Int32, _ control: LinkControl, isOn: Bool, name: () throws(LinkError) -> String
  ) throws(LinkError) -> (TapQueue, knowsNoCarrier: Bool) {
    var label = "interface \(index)"
    // Renamed eight times between two calls is no accident.
    for _ in 0..<8 {
      label = try name()
      let queue = TapQueue(descriptor: try TunControl.open(link: label))
      let tun = TunControl(descriptor: queue.descriptor)
      let known = tun.features & TunControl.noCarrier
      let failure = tun.attach(name: label, flags: TunControl.tapFlags | (isOn ? 0 : known))
      guard failure == 0 else { throw LinkError(link: label, call: "TUNSETIFF", errno: failure) }
      // With a name that just went, the kernel made a new interface; closing the queue takes it away.
      if let opened = tun.name, try control.status(name: opened)?.index == index {
        return (queue, known != 0)
      }
    }
    throw LinkError(link: label, reason: .gone)
  }

  // MARK: Those of an earlier process

  /// Persistent TAPs of the calling thread's namespace whose alias begins with `aliasPrefix` and which no
  /// program has open.
  public static func leftovers(aliasPrefix: String) throws(LinkError) -> [LinkStatus] {
    try LinkControl().all().filter {
      $0.alias.hasPrefix(aliasPrefix) && $0.tun?.isTap == true && $0.tun?.queueCount == 0
    }
  }
}
