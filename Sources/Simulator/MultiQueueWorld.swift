import Blkback

/// A disk with several queues, each with the real engine, driven by one seed; and its power, which can be cut.
public final class MultiQueueWorld {
  /// What the queues share.
  public private(set) var shared: SharedDisk
  /// The queues.
  public private(set) var queues: [BlockWorld]
  /// What the seed decides.
  public var numbers: SeededNumbers

  private let setup: BlockWorld.Setup
  private let persistent: [Bool]
  private let faults: FaultPlan

  /// A disk of zeros with `queueCount` queues, each made as `setup` says. `mixesGrants` gives every second
  /// queue the other way to move data.
  public init(
    _ setup: BlockWorld.Setup, queueCount: Int, faults: FaultPlan = FaultPlan(), mixesGrants: Bool = false
  ) throws {
    self.setup = setup
    self.faults = faults
    persistent = (0..<queueCount).map { setup.usesPersistentGrants != (mixesGrants && $0 % 2 == 1) }
    numbers = SeededNumbers(seed: setup.seed ^ 0x9E37)
    let byteCount = max(4096, (Int(setup.limits.sectorCount) * 512 + 4095) / 4096 * 4096)
    shared = SharedDisk(try SimulatedDisk(byteCount: byteCount))
    queues = []
    try connect()
  }

  private func connect() throws {
    queues = []
    for persistent in persistent {
      var setup = setup
      setup.seed = numbers.next()
      setup.usesPersistentGrants = persistent
      let queue = try BlockWorld(setup, sharing: shared)
      queue.host.faults = faults
      queues.append(queue)
    }
  }

  /// The bytes.
  public var disk: SimulatedDisk { shared.disk }
  /// True once data was lost.
  public var isFenced: Bool { shared.fenceErrno != nil }
  /// Requests taken and not answered.
  public var inFlightCount: Int { queues.reduce(0) { $0 + $1.inFlightCount } }

  /// Runs every queue until nothing moves by itself; says what stands still, nil if nothing does.
  public func settle() -> String? {
    for _ in 0..<200_000 {
      var moved = false
      for queue in queues where queue.runIfDue() { moved = true }
      let first = Int.random(in: 0..<queues.count, using: &numbers)
      for place in queues.indices {
        let queue = queues[(first + place) % queues.count]
        if queue.complete(upTo: Int.random(in: 1...3, using: &numbers)) > 0 {
          moved = true
          break
        }
      }
      if !moved {
        let still = queues.indices.filter { !queues[$0].isDrained }
        return still.isEmpty ? nil : "queues \(still) stand still with \(inFlightCount) requests"
      }
    }
    return "no end in sight"
  }

  /// Cuts the power: writes under way may have reached the medium in part, and of what was written and not
  /// flushed any part may be lost, down to single words. Then everything starts anew on what is left.
  public func cutPower() throws {
    for queue in queues { queue.host.spillWrites() }
    disk.cutPower(&numbers)
    shared = SharedDisk(disk)
    try connect()
  }

  /// What must hold whenever nothing is in flight, as sentences about what does not.
  public var leftovers: [String] {
    var found: [String] = []
    for (number, queue) in queues.enumerated() { found += queue.leftovers.map { "queue \(number): \($0)" } }
    return found
  }
}
