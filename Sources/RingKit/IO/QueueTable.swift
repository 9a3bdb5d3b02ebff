/// The queues of a loop, with which of them are runnable, and which port belongs to which.
///
/// The table holds each queue's only guaranteed reference. A removed queue is let go at the end of the turn,
/// so one that removes itself while it runs is safe.
@safe @usableFromInline
struct QueueTable<Queue: DataQueue>: ~Copyable {
  @unsafe @usableFromInline
  struct Slot {
    @usableFromInline var queue: Unmanaged<Queue>?
    @usableFromInline var unmaskAt: UInt64 = .max
    @usableFromInline var runAt: UInt64 = .max
    @usableFromInline var port: Port?
    /// A network queue may have one port for each direction; they are masked and unmasked together.
    @usableFromInline var secondPort: Port?
    @usableFromInline var generation: UInt16 = 0
    /// It stands in the line of runnable queues.
    @usableFromInline var isInLine = false
    @usableFromInline var isMasked = false
    /// It has asked for no event since it last had nothing to do.
    @usableFromInline var isUnarmed = false
    /// It stands in the list of polled queues.
    @usableFromInline var isListed = false
    /// Its next turn asks for an event.
    @usableFromInline var mustArm = false
    /// Turns in a row that left work behind and asked for no event.
    @usableFromInline var fruitless: UInt8 = 0

    @usableFromInline init() {}
  }

  @usableFromInline
  struct State {
    @usableFromInline var lineHead: UInt32 = 0
    @usableFromInline var lineTail: UInt32 = 0
    /// No deadline of any slot is earlier.
    @usableFromInline var earliest: UInt64 = .max
    @usableFromInline var polledCount = 0
    @usableFromInline init() {}
  }

  /// Queues that are polled at once; looking at more would take longer than an event.
  @usableFromInline static var pollCapacity: Int { 32 }
  /// A queue that owns no slot, in the table of ports.
  private static var nobody: UInt16 { .max }
  /// Ports of the FIFO event channel ABI, the largest number there is (event_channel.h).
  private static var portLimit: Int { 1 << 17 }

  // Sound: allocated from init to deinit; indices come from keys, tokens and the line, and are checked
  // against `capacity`, a power of two.
  @usableFromInline let slots: UnsafeMutablePointer<Slot>
  @usableFromInline let line: UnsafeMutablePointer<UInt16>
  @usableFromInline let polled: UnsafeMutablePointer<UInt16>
  @usableFromInline let state: UnsafeMutablePointer<State>
  @usableFromInline let capacity: Int
  private let books: Books

  /// What only control work changes; apart, so that the table itself is constant.
  private final class Books {
    var free: [UInt16] = []
    /// Queues taken out during this turn.
    var removed: [Queue] = []
    /// The slot of each port, or `nobody`.
    var owners: [UInt16] = []
  }

  init(capacity: Int) {
    precondition(capacity > 0 && capacity <= QueueKey.capacity)
    var rounded = 1
    while rounded < capacity { rounded *= 2 }
    self.capacity = rounded
    unsafe slots = .allocate(capacity: rounded)
    unsafe slots.initialize(repeating: Slot(), count: rounded)
    unsafe line = .allocate(capacity: rounded)
    unsafe polled = .allocate(capacity: Self.pollCapacity)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
    books = Books()
    books.free = Array(0..<UInt16(rounded))
  }

  deinit {
    removeAll()
    releaseRemoved()
    unsafe slots.deallocate()
    unsafe line.deallocate()
    unsafe polled.deallocate()
    unsafe state.deallocate()
  }

  /// Takes a place for a queue that is still to be made, so that it can know its key; nil when the table is
  /// full.
  func reserve() -> QueueKey? {
    // First in, first out: a place rests as long as it can before its generations come round again.
    guard !books.free.isEmpty else { return nil }
    let index = books.free.removeFirst()
    let (isInLine, isListed) = unsafe (slots[Int(index)].isInLine, slots[Int(index)].isListed)
    let generation = unsafe slots[Int(index)].generation
    var slot = unsafe Slot()
    unsafe slot.generation = generation
    unsafe slot.isInLine = isInLine
    unsafe slot.isListed = isListed
    unsafe slots[Int(index)] = slot
    return QueueKey(index: index, generation: generation)
  }

  /// Puts a queue into its reserved place.
  func install(_ queue: Queue, as key: QueueKey) {
    let index = Int(key.index)
    precondition(index < capacity)
    unsafe precondition(slots[index].generation == key.generation && slots[index].queue == nil)
    unsafe slots[index].queue = .passRetained(queue)
  }

  /// Takes a queue out and gives the ports it had; its key means nothing from here on.
  func remove(_ key: QueueKey) -> (wasPresent: Bool, ports: [Port]) {
    let index = Int(key.index)
    guard index < capacity, unsafe slots[index].generation == key.generation else { return (false, []) }
    let queue = unsafe slots[index].queue
    let ports = unsafe [slots[index].port, slots[index].secondPort].compactMap { $0 }
    for port in ports { books.owners[Int(port.rawValue)] = Self.nobody }
    unsafe slots[index].queue = nil
    unsafe slots[index].port = nil
    unsafe slots[index].secondPort = nil
    unsafe slots[index].generation = (slots[index].generation &+ 1) & 0xFFF
    if let queue = unsafe queue { unsafe books.removed.append(queue.takeRetainedValue()) }
    books.free.append(key.index)
    return (true, ports)
  }

  /// Lets the queues go that were removed during this turn.
  func releaseRemoved() {
    if books.removed.isEmpty { return }
    // Let go outside the array: a queue's deinit may come back here.
    let queues = books.removed
    books.removed = []
    _ = consume queues
  }

  /// Notes a port of a queue that has none, or only one; false when the number is beyond what Xen has.
  func setPort(_ port: Port, of index: Int) -> Bool {
    let number = Int(port.rawValue)
    guard number < Self.portLimit else { return false }
    let missing = number + 1 - books.owners.count
    if missing > 0 { books.owners.append(contentsOf: repeatElement(Self.nobody, count: missing)) }
    books.owners[number] = UInt16(index)
    if unsafe slots[index].port == nil {
      unsafe slots[index].port = port
    } else {
      unsafe slots[index].secondPort = port
    }
    return true
  }

  /// The slot that owns a port.
  func owner(of port: Port) -> Int? {
    let number = Int(port.rawValue)
    guard number < books.owners.count, books.owners[number] != Self.nobody else { return nil }
    return Int(books.owners[number])
  }

  /// Takes all queues out and gives the ports they had.
  @discardableResult
  func removeAll() -> [Port] {
    var ports: [Port] = []
    for index in 0..<capacity where unsafe slots[index].queue != nil {
      let key = unsafe QueueKey(index: UInt16(index), generation: slots[index].generation)
      ports += remove(key).ports
    }
    return ports
  }

  /// The slot of a key that is still valid.
  @inlinable
  func find(_ key: QueueKey) -> Int? { find(index: Int(key.index), generation: key.generation) }

  @inlinable
  func find(index: Int, generation: UInt16) -> Int? {
    guard index < capacity, unsafe slots[index].generation == generation, unsafe slots[index].queue != nil
    else { return nil }
    return index
  }

  /// Queues (or the emptied places of some) in the line.
  @inlinable var runnableCount: Int { unsafe Int(state.pointee.lineTail &- state.pointee.lineHead) }

  /// Puts a slot at the end of the line, once.
  @inlinable
  func makeRunnable(_ index: Int) {
    if unsafe slots[index].isInLine { return }
    unsafe slots[index].isInLine = true
    unsafe line[Int(state.pointee.lineTail) & (capacity - 1)] = UInt16(truncatingIfNeeded: index)
    unsafe state.pointee.lineTail &+= 1
  }

  /// Takes the first slot of a line that is not empty.
  @inlinable
  func nextRunnable() -> Int {
    let index = unsafe Int(line[Int(state.pointee.lineHead) & (capacity - 1)])
    unsafe state.pointee.lineHead &+= 1
    unsafe slots[index].isInLine = false
    return index
  }

  /// Queues in the list of polled ones.
  @inlinable var polledCount: Int { unsafe state.pointee.polledCount }

  /// The slot at a place of that list.
  @inlinable
  func polledSlot(_ position: Int) -> Int { unsafe Int(polled[position]) }

  /// Puts a slot into the list of polled ones; false when there is no place.
  @inlinable
  func list(_ index: Int) -> Bool {
    if unsafe slots[index].isListed { return true }
    guard polledCount < Self.pollCapacity else { return false }
    unsafe slots[index].isListed = true
    unsafe polled[polledCount] = UInt16(truncatingIfNeeded: index)
    unsafe state.pointee.polledCount += 1
    return true
  }

  /// Notes a deadline that some slot now has.
  @inlinable
  func note(deadline: UInt64) {
    unsafe state.pointee.earliest = min(state.pointee.earliest, deadline)
  }
}
