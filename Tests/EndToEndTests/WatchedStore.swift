import Blkback
import RingKit
import Synchronization

/// In which order calls to a store began and ended, and what its guest saw of them: one counter for all.
final class CallLog: Sendable {
  /// A call that has ended: when it began, when it ended, and how.
  struct Call: Sendable {
    var began: Int
    var ended: Int
    var offset: UInt64
    var result: Int32
  }

  private struct State {
    var clock = 0
    var writes: [Call] = []
    var flushes: [Call] = []
  }

  private let state = Mutex(State())

  /// The next moment.
  func tick() -> Int {
    state.withLock { state in
      state.clock += 1
      return state.clock
    }
  }

  func ended(_ call: Call, isFlush: Bool) {
    state.withLock { if isFlush { $0.flushes.append(call) } else { $0.writes.append(call) } }
  }

  var writes: [Call] { state.withLock { $0.writes } }
  var flushes: [Call] { state.withLock { $0.flushes } }
}

/// A store whose writes and flushes are written down.
final class WatchedStore: StoreAround {
  let below: any BlockStore
  private let log: CallLog

  init(_ below: any BlockStore, _ log: CallLog) {
    self.below = below
    self.log = log
  }

  func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    WatchedChannel(try below.openChannel(place), log)
  }
}

/// Its writes and flushes go below under tokens of its own, so that it hears of their ends.
private final class WatchedChannel: ChannelAround {
  private struct Pending {
    var token: UInt32
    var began: Int
    var offset: UInt64
    var isFlush: Bool
  }

  let below: any StoreChannel
  private let log: CallLog
  /// By number, from 128 on; the store below may use those before.
  private var pending = [Pending?](repeating: nil, count: 128)
  private var ended: [StoreCompletion] = []

  init(_ below: any StoreChannel, _ log: CallLog) {
    self.below = below
    self.log = log
  }

  private func begin(_ token: UInt32, offset: UInt64, isFlush: Bool) -> UInt32 {
    guard let place = pending.firstIndex(where: { $0 == nil }) else { return token }
    pending[place] = Pending(token: token, began: log.tick(), offset: offset, isFlush: isFlush)
    return StoreToken.own(UInt32(128 + place))
  }

  /// The end of a call of ours; nil when it is another's.
  private func end(_ token: UInt32, _ result: Int32) -> StoreCompletion? {
    guard let number = StoreToken.number(token), number >= 128, let call = pending[Int(number) - 128] else {
      return nil
    }
    pending[Int(number) - 128] = nil
    log.ended(
      CallLog.Call(began: call.began, ended: log.tick(), offset: call.offset, result: result),
      isFlush: call.isFlush)
    return StoreCompletion(token: call.token, result: result)
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    let name = begin(token, offset: offset, isFlush: false)
    below.write(token: name, from: vectors, first: first, count: count, offset: offset)
  }

  func flush(token: UInt32) { below.flush(token: begin(token, offset: 0, isFlush: true)) }

  func completed(token: UInt32, result: Int32) {
    if let completion = end(token, result) {
      ended.append(completion)
    } else {
      below.completed(token: token, result: result)
    }
  }

  func nextCompletion() -> StoreCompletion? {
    if !ended.isEmpty { return ended.removeFirst() }
    guard let completion = below.nextCompletion() else { return nil }
    return end(completion.token, completion.result) ?? completion
  }

  var hasCompletions: Bool { !ended.isEmpty || below.hasCompletions }
}
