public import RingKit
import Synchronization

/// The frames of one interface as somebody watches them: data threads put them in, the control thread takes them
/// out as a pcapng file.
///
/// No data thread ever waits for it: a frame for which there is no room, or that comes while another thread is at
/// the buffer, is counted and left out. What is kept of a frame is bounded by the snap length, and all that waits
/// to be taken by ``byteLimit``.
public final class FrameCapture: Sendable {
  /// Bytes that wait to be taken, at most.
  public static var byteLimit: Int { 4 << 20 }

  /// What was seen so far.
  public struct Counts: Equatable, Sendable {
    /// Frames kept.
    public var captured: UInt64 = 0
    /// Frames left out for want of room.
    public var dropped: UInt64 = 0

    /// Joins the numbers.
    public init(captured: UInt64 = 0, dropped: UInt64 = 0) {
      self.captured = captured
      self.dropped = dropped
    }
  }

  private struct State {
    var bytes: [UInt8] = []
    var captured: UInt64 = 0
    var dropped: UInt64 = 0
  }

  private let state: Mutex<State>
  /// Frames that came while another thread was at the buffer.
  private let missed = Atomic<UInt64>(0)
  private let writer: PcapngWriter
  private let interface: PcapngWriter.Interface
  private let frameLimit: UInt64
  /// From CLOCK_MONOTONIC to nanoseconds since 1970.
  private let epoch: UInt64
  private let wake: @Sendable () -> Void

  /// Begins a capture of the interface called `name`. `epoch` is what has to be added to CLOCK_MONOTONIC for the
  /// time since 1970, in nanoseconds; after `frameLimit` frames (nil for no limit) no more are kept. `wake` is
  /// called, by any thread, when there is something to take after there was nothing.
  public init(
    name: String, snapLength: Int, frameLimit: UInt64?, epoch: UInt64, wake: @escaping @Sendable () -> Void
  ) {
    var writer = PcapngWriter(snapLength: snapLength)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.byteLimit)
    bytes += writer.header(application: "ringback")
    let (interface, description) = writer.addInterface(name: name)
    bytes += description
    self.writer = writer
    self.interface = interface
    self.frameLimit = frameLimit ?? .max
    self.epoch = epoch
    self.wake = wake
    state = Mutex(State(bytes: bytes))
  }

  /// Keeps a frame that passed at `now` of CLOCK_MONOTONIC, if there is room.
  public func note(_ frame: PrivateBytes, _ direction: PcapngWriter.Direction, atNanoseconds now: UInt64) {
    // Nil if another thread has the lock.
    let wakes = state.withLockIfAvailable { state -> Bool in
      guard state.captured < frameLimit else { return false }
      let size = PcapngWriter.blockByteCount(keptByteCount: min(frame.count, writer.snapLength))
      guard size <= Self.byteLimit - state.bytes.count else {
        state.dropped += 1
        return false
      }
      let wasEmpty = state.bytes.isEmpty
      writer.append(frame, of: interface, direction, atNanoseconds: now &+ epoch, to: &state.bytes)
      state.captured += 1
      return wasEmpty || state.captured == frameLimit
    }
    if let wakes {
      if wakes { wake() }
    } else {
      missed.add(1, ordering: .relaxed)
    }
  }

  /// What was seen so far.
  public var counts: Counts {
    let lost = missed.load(ordering: .relaxed)
    return state.withLock { Counts(captured: $0.captured, dropped: $0.dropped + lost) }
  }

  /// Whether all frames that were wanted have come.
  public var isFull: Bool { state.withLock { $0.captured >= frameLimit } }

  /// Takes what there is: blocks of a file, whole ones. `bytes` is empty, and has room for ``byteLimit``; a data
  /// thread finds the lock taken only for the time of an exchange.
  public func take(into bytes: inout [UInt8]) {
    bytes.removeAll(keepingCapacity: true)
    bytes.reserveCapacity(Self.byteLimit)
    state.withLock { swap(&$0.bytes, &bytes) }
  }

  /// The last block of the file, behind all that was taken, as of `now` of CLOCK_MONOTONIC: the numbers.
  public func ending(atNanoseconds now: UInt64) -> [UInt8] {
    let counts = counts
    return writer.statistics(
      of: interface, receivedCount: counts.captured + counts.dropped, droppedCount: counts.dropped,
      atNanoseconds: now &+ epoch)
  }
}
