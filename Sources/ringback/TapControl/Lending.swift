import Blkback
import RingKit

/// Lends the images of taps, while no ring uses them, to those who come over NBD: QEMU for the emulated disk
/// of a guest that boots (libxl_disk.c, libxl__device_disk_find_local_path), and tools in this domain.
///
/// Lent, not shared: tapdisk serves its socket and the ring at once and leaves it to the guest to use one of
/// both; two writers that know nothing of each other are a way to destroy a disk. So the ring comes first,
/// whenever it comes.
final class Lending {
  weak var owner: (any LendingOwner)?
  private var doors: [Int: LendingDoor] = [:]
  /// Numbers of images that have been closed, and who waits for them.
  private let closed: Mailbox<UInt32>
  private var waiting: [UInt32: () -> Void] = [:]
  private var lastClosing: UInt32 = 0

  init() throws(SystemError) { closed = try Mailbox() }

  /// Listens for a tap at `path`, or goes on with it.
  func open(minor: Int, image: LentImage, path: String) throws(SystemError) {
    if let door = doors[minor] {
      door.change(to: image)
    } else if let owner {
      doors[minor] = try LendingDoor(minor: minor, image: image, path: path, owner: owner)
    }
  }

  /// Ends what uses the tap's image, with a bounded wait; goes on listening.
  func takeBack(minor: Int) { doors[minor]?.takeBack() }

  /// Ends what uses the tap's image, with a bounded wait, and takes the socket away.
  func close(minor: Int) { doors.removeValue(forKey: minor)?.takeBack() }

  /// The daemon stops: all at once, so that the waits add up to no more than one.
  func closeAll() {
    let end = MonotonicClock.nowNanoseconds() + ImageServer.endNanoseconds
    for door in doors.values { door.askBack() }
    for door in doors.values { door.takeBack(untilNanoseconds: end) }
    doors = [:]
  }

  /// Closes what held an image; `done` is called on the control thread when nothing touches it any longer.
  func close(_ hold: any BlockStore, done: @escaping () -> Void) {
    lastClosing &+= 1
    let number = lastClosing
    waiting[number] = done
    hold.close { [closed] in closed.post(number) }
  }

  /// Why the tap's image could not be served to the last who came; nil when it could.
  func failure(minor: Int) -> VbdError? { doors[minor]?.failure }

  /// True while the tap's image is with somebody outside, or about to be.
  func isLent(minor: Int) -> Bool { doors[minor]?.isLent ?? false }

  /// The process that serves the tap's image.
  func processID(minor: Int) -> Int32? { doors[minor]?.processID }

  // MARK: For the control thread's loop

  /// What is waited for.
  var descriptors: [(descriptor: Int32, writable: Bool)] {
    doors.values.flatMap(\.descriptors) + [(closed.descriptor, false)]
  }

  /// When something is to be done unasked, in nanoseconds of CLOCK_MONOTONIC.
  var dueNanoseconds: UInt64? { doors.values.compactMap(\.dueNanoseconds).min() }

  /// Serves a ready descriptor, if it is one of ours.
  func serve(_ descriptor: Int32) {
    if descriptor == closed.descriptor {
      for number in closed.take() { waiting.removeValue(forKey: number)?() }
      return
    }
    doors.values.first { $0.descriptors.contains { $0.descriptor == descriptor } }?.serve()
  }

  /// Does what is due.
  func look(atNanoseconds now: UInt64) { for door in Array(doors.values) { door.look(atNanoseconds: now) } }
}
