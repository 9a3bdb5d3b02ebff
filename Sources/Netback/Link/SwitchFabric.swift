import RingKit

/// A queue's place at a switch.
public final class SwitchPort: Sendable {
  /// The switch.
  let fabric: SwitchFabric
  /// The interface's number at the switch, 0..<``SwitchTable/portLimit``.
  let number: Int
  /// The queue's number in the interface, and how many queues that has.
  let queue: Int
  let queueCount: Int
  /// The address that the toolstack gave the interface.
  let address: EthernetAddress?

  init(fabric: SwitchFabric, number: Int, queue: Int, queueCount: Int, address: EthernetAddress?) {
    self.fabric = fabric
    self.number = number
    self.queue = queue
    self.queueCount = queueCount
    self.address = address
  }

  /// Where it is found.
  var place: SwitchPlace { SwitchPlace(port: number, queue: queue) }
}

/// Names a queue at a switch.
struct SwitchPlace: BitwiseCopyable {
  let rawValue: Int

  init(rawValue: Int) { self.rawValue = rawValue }
  init(port: Int, queue: Int) { rawValue = port * VifOffer.queueLimit + queue }
}

/// The inside of a switch: its addresses, and the queues of all connected ports.
///
/// All those queues live on one data thread. What one guest sends is put into another one's receive ring in the
/// sender's own turn: nothing is handed over between threads, no lock is taken, and the copy from page to page
/// is done, and the sender's slots answered, before the turn ends. Several switches spread over the threads.
///
/// - A frame of more than ``privateByteCount`` bytes for one port is copied once, from the sender's pages to the
///   receiver's, but for its first ``leadingByteCount`` bytes, which are checked in private memory and written
///   from there. It has to come whole into private memory where the receiver does not take it as it is, has no
///   slots for it now, or where it goes to several ports.
/// - A shorter one always comes whole: that is one copy in and one out, where it would be three copies past
///   private memory, and the number of copies is what costs (DESIGN, "Seven decisions", 6).
/// - What a receiver has no slots for waits in its own backlog, in memory that counts as its own, and is dropped
///   there (``RxBacklog``, ``RxStall``). The sender's slots are answered in the turn in which they were taken.
/// - Receivers that take nothing share what is free of the thread's memory: each may have as much waiting as a
///   quarter of what is still free, so that any number of them leaves some.
/// - A frame for all ports is copied for each; a sender makes ``floodLimit`` such copies in a turn of the thread.
final class SwitchFabric: @unchecked Sendable {
  // Sound: control work makes it, and from then on only the data thread that owns the queues of all its ports
  // uses it: they join where they are made, and leave at the latest when that thread's loop lets go of them
  // (``NetQueue``).

  /// The longest frame that always comes whole.
  static let privateByteCount = 2048
  /// Bytes of a longer one that come first. Headers are shorter, but for rows of IPv6 extensions.
  static let leadingByteCount = 256
  /// Copies that a port's frames for all ports become in one turn at most.
  static let floodLimit = 1024

  private struct Flood {
    var turn: UInt64 = .max
    var count = 0
  }

  /// Where addresses are.
  var table: SwitchTable
  // A queue and its switch hold each other; the queue's leaving ends that.
  private var members: [NetDataQueue?]
  /// Queues that each port has in all, and those of them that are there.
  private var queueCounts = [Int](repeating: 0, count: SwitchTable.portLimit)
  private var joinedCounts = [Int](repeating: 0, count: SwitchTable.portLimit)
  private var floods = [Flood](repeating: Flood(), count: SwitchTable.portLimit)

  /// A switch without ports.
  init(seed: UInt64) {
    table = SwitchTable(seed: seed)
    members = [NetDataQueue?](repeating: nil, count: SwitchTable.portLimit * VifOffer.queueLimit)
  }

  // MARK: Ports

  /// A queue can be sent to.
  func join(_ queue: NetDataQueue) {
    guard let port = queue.switchPort else { return }
    members[port.place.rawValue] = queue
    queueCounts[port.number] = port.queueCount
    joinedCounts[port.number] += 1
    // Another interface may have been given the same one, and was first.
    if let address = port.address { _ = table.fix(address, toPort: port.number) }
  }

  /// A queue is sent nothing any more. With an interface's last queue go its addresses.
  func leave(_ queue: NetDataQueue) {
    guard let port = queue.switchPort, members[port.place.rawValue] === queue else { return }
    members[port.place.rawValue] = nil
    joinedCounts[port.number] -= 1
    guard joinedCounts[port.number] == 0 else { return }
    queueCounts[port.number] = 0
    table.removeAll(ofPort: port.number)
  }

  /// The queue at a place.
  subscript(place: SwitchPlace) -> NetDataQueue? { members[place.rawValue] }

  /// The place of the queue of a port for what comes from another port's queue `index`: always the same, so that
  /// flows, each of which a guest keeps on one queue, keep their order. Nil when the port has none.
  func place(ofPort port: Int, forQueue index: Int) -> SwitchPlace? {
    guard queueCounts[port] > 0 else { return nil }
    return SwitchPlace(port: port, queue: index % queueCounts[port])
  }

  /// Whether a port may send one more copy to all in this turn of its thread.
  func mayFlood(_ port: Int, inTurn turn: UInt64) -> Bool {
    if floods[port].turn != turn { floods[port] = Flood(turn: turn) }
    guard floods[port].count < Self.floodLimit else { return false }
    floods[port].count += 1
    return true
  }
}
