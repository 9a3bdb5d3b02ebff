import Frontends
import RingKit
import Synchronization

/// A disk with a volatile cache, whose power can go at any moment: what was not flushed is then there or not,
/// sector by sector.
///
/// A flush covers the writes that had ended when it began and nothing else: the least that a store has to
/// promise.
final class CuttableDisk: Sendable {
  private struct State {
    var isOff = false
    /// Calls until the power goes.
    var callsLeft: Int
    /// The number of the last change of each sector that is not durable, by sector; `ended` are those whose
    /// call has ended.
    var begun: [Int: UInt64] = [:]
    var ended: [Int: UInt64] = [:]
    /// The number of the change that made each sector what it durably is.
    var durableChange: [Int: UInt64] = [:]
    var changeCount: UInt64 = 0
    var random: SeededGenerator
    /// A sector's worth of memory, for copies between the two disks.
    let scratch: MappedPages
  }

  /// A change under way.
  struct Change {
    fileprivate let number: UInt64
    fileprivate let sectors: Range<Int>
  }

  /// What a flush under way covers.
  struct Promise {
    fileprivate let sectors: [(sector: Int, number: UInt64, words: [UInt64])]
  }

  private let current: MemoryDisk
  private let durable: MemoryDisk
  private let keepsPromises: Bool
  private let state: Mutex<State>

  /// A disk of zeroes that loses its power at call `callsBeforeCut`. One that does not keep its promises
  /// forgets what was flushed too.
  init(byteCount: Int, callsBeforeCut: Int, seed: UInt64, keepsPromises: Bool = true) throws {
    current = try MemoryDisk(byteCount: byteCount)
    durable = try MemoryDisk(byteCount: byteCount)
    self.keepsPromises = keepsPromises
    let scratch = try MappedPages.anonymous(pageCount: 1)
    state = Mutex(
      State(callsLeft: callsBeforeCut, random: SeededGenerator(seed: seed), scratch: scratch))
  }

  var byteCount: Int { current.byteCount }

  /// True once the power went.
  var isOff: Bool { state.withLock { $0.isOff } }

  /// The power comes back.
  func turnOn() {
    state.withLock { state in
      state.isOff = false
      state.callsLeft = .max
    }
  }

  /// Takes note of a call; false when there is no power for it.
  func beginCall() -> Bool {
    state.withLock { state in
      guard !state.isOff else { return false }
      state.callsLeft -= 1
      guard state.callsLeft <= 0 else { return true }
      cut(&state)
      return false
    }
  }

  /// Each changed sector falls back to what is durable, or not.
  private func cut(_ state: inout State) {
    state.isOff = true
    for sector in state.begun.keys.sorted() {
      let (from, to) = state.random.next() % 2 == 0 ? (current, durable) : (durable, current)
      let words = copy(sector, of: from, state.scratch)
      set(sector, of: to, words, state.scratch)
    }
    state.begun = [:]
    state.ended = [:]
  }

  /// Reads it, whole: no sector is half of one write and half of another.
  func read(at offset: UInt64, into segments: [IOSegment]) {
    state.withLock { _ in
      var position = offset
      for segment in segments {
        current.read(at: position, into: segment)
        position += UInt64(segment.length)
      }
    }
  }

  /// Takes note that a range is about to change.
  func beginChange(at offset: UInt64, byteCount: UInt64) -> Change {
    state.withLock { state in
      state.changeCount += 1
      let sectors = Int(offset / 512)..<Int((offset + byteCount) / 512)
      for sector in sectors { state.begun[sector] = state.changeCount }
      return Change(number: state.changeCount, sectors: sectors)
    }
  }

  /// Changes it, unless the power went.
  func write(at offset: UInt64, from segments: [IOSegment]) {
    state.withLock { state in
      guard !state.isOff else { return }
      var position = offset
      for segment in segments {
        current.write(at: position, from: segment)
        position += UInt64(segment.length)
      }
    }
  }

  /// Zeroes a range, unless the power went.
  func zero(_ change: Change) {
    state.withLock { state in
      guard !state.isOff else { return }
      let zeroes = [UInt64](repeating: 0, count: 64)
      for sector in change.sectors { set(sector, of: current, zeroes, state.scratch) }
    }
  }

  /// The change ended: true unless the power went meanwhile.
  func endChange(_ change: Change) -> Bool {
    state.withLock { state in
      guard !state.isOff else { return false }
      for sector in change.sectors where state.begun[sector] == change.number {
        state.ended[sector] = change.number
      }
      return true
    }
  }

  /// Begins a flush.
  func beginFlush() -> Promise {
    state.withLock { state in
      guard keepsPromises else { return Promise(sectors: []) }
      return Promise(
        sectors: state.ended.map { sector, number in
          (sector, number, copy(sector, of: current, state.scratch))
        })
    }
  }

  /// The flush ended: what it covers is durable, unless the power went meanwhile.
  func endFlush(_ promise: Promise) -> Bool {
    state.withLock { state in
      guard !state.isOff else { return false }
      for (sector, number, words) in promise.sectors {
        // Another flush, that began later, may have ended first.
        if number > state.durableChange[sector, default: 0] {
          set(sector, of: durable, words, state.scratch)
          state.durableChange[sector] = number
        }
        // What changed since is volatile again.
        if state.ended[sector] == number { state.ended[sector] = nil }
        if state.begun[sector] == number { state.begun[sector] = nil }
      }
      return true
    }
  }

  private func copy(_ sector: Int, of disk: MemoryDisk, _ scratch: MappedPages) -> [UInt64] {
    disk.read(at: UInt64(sector) * 512, into: scratch.segment(offset: 0, length: 512))
    return scratch.copyWords(at: 0, count: 64)
  }

  private func set(_ sector: Int, of disk: MemoryDisk, _ words: [UInt64], _ scratch: MappedPages) {
    scratch.setWords(words, at: 0)
    disk.write(at: UInt64(sector) * 512, from: scratch.segment(offset: 0, length: 512))
  }
}
