import Foundation

/// All taps. A state machine without I/O: each minor goes from allocated to attached to open to paused and back,
/// by the steps that blktap's `tap-ctl` has, and a wrong step ends with the same error number as there
/// (tapdisk-control.c, tap-ctl-allocate.c, tap-ctl-free.c).
struct TapTable: Equatable {
  /// Minors there can be (blktap.h, MAX_ID).
  static let limit = 16384

  /// By minor, ascending.
  private(set) var taps: [Tap] = []

  init() {}

  subscript(minor: Int) -> Tap? { taps.first { $0.minor == minor } }

  private func index(_ minor: Int) -> Int? { taps.firstIndex { $0.minor == minor } }

  // MARK: Steps

  /// Gives the lowest minor that is free.
  mutating func allocate() throws(TapError) -> Int {
    // Ascending and unique: the first that differs from its place leaves that place free.
    let minor = taps.enumerated().first { $0.offset != $0.element.minor }?.offset ?? taps.count
    guard minor < Self.limit else {
      throw TapError(ENOSPC, "all \(Self.limit) minors are in use; free those that nobody needs")
    }
    taps.insert(Tap(minor: minor), at: minor)
    return minor
  }

  /// Gives a minor back that no process has.
  mutating func free(_ minor: Int) throws(TapError) {
    guard let index = index(minor) else { throw unknown(minor, ENOENT) }
    guard taps[index].phase == .allocated else {
      throw TapError(EAGAIN, "minor \(minor) is attached; detach it first")
    }
    taps.remove(at: index)
  }

  /// Puts a minor into a process.
  mutating func attach(_ minor: Int, process: Int32) throws(TapError) {
    guard let index = index(minor) else { throw unknown(minor, ENOENT) }
    guard taps[index].phase == .allocated else {
      throw TapError(EEXIST, "minor \(minor) is attached already")
    }
    taps[index].process = process
    taps[index].wasClosed = false
  }

  /// Takes a minor out of its process.
  mutating func detach(_ minor: Int) throws(TapError) {
    let index = try attached(minor, ENODEV)
    guard taps[index].image == nil else {
      throw TapError(EBUSY, "minor \(minor) has \(name(index)) open; close it first")
    }
    taps[index].process = nil
    taps[index].wasClosed = false
  }

  /// Says whether an image may be opened now; the minor's process when it may.
  func checkOpen(_ minor: Int) throws(TapError) -> Int32 {
    let index = try attached(minor, EINVAL)
    guard taps[index].image == nil else {
      throw TapError(EALREADY, "minor \(minor) has \(name(index)) open already")
    }
    return taps[index].process ?? 0
  }

  /// Records an image that was opened.
  mutating func open(_ minor: Int, _ image: TapImage) throws(TapError) {
    _ = try checkOpen(minor)
    guard let index = index(minor) else { return }
    taps[index].image = image
    taps[index].image?.isPaused = false
    taps[index].wasClosed = false
  }

  /// Forgets the image, paused or not. One that is not there is no error.
  mutating func close(_ minor: Int) throws(TapError) {
    let index = try attached(minor, ENODEV)
    taps[index].image = nil
    taps[index].wasClosed = true
  }

  /// Takes a step ``open(_:_:)`` back.
  mutating func takeBackOpen(_ minor: Int) throws(TapError) {
    let index = try attached(minor, ENODEV)
    taps[index].image = nil
  }

  /// The image, which has `sectorCount` sectors now, is let go of. A paused one stays as it is.
  mutating func pause(_ minor: Int, sectorCount: UInt64? = nil) throws(TapError) {
    let index = try attached(minor, ENODEV)
    guard taps[index].image != nil else {
      throw TapError(EINVAL, "minor \(minor) has no image open; there is nothing to pause")
    }
    taps[index].image?.isPaused = true
    if let sectorCount { taps[index].image?.sectorCount = sectorCount }
  }

  /// Says whether the minor waits to go on; its image when it does.
  func checkUnpause(_ minor: Int) throws(TapError) -> TapImage {
    let index = try attached(minor, ENODEV)
    guard let image = taps[index].image, image.isPaused else {
      throw TapError(EINVAL, "minor \(minor) is not paused")
    }
    return image
  }

  /// Goes on with the same image or, under another name, with another one.
  mutating func unpause(_ minor: Int, name: String?) throws(TapError) {
    _ = try checkUnpause(minor)
    guard let index = index(minor) else { return }
    taps[index].image?.isPaused = false
    if let name { taps[index].image?.name = name }
  }

  /// An open image has been exchanged under the tap.
  mutating func rename(_ minor: Int, to name: String) throws(TapError) {
    let index = try attached(minor, ENODEV)
    taps[index].image?.name = name
  }

  // MARK: Errors

  /// Where an attached minor stands.
  private func attached(_ minor: Int, _ errno: Int32) throws(TapError) -> Int {
    guard let index = index(minor) else { throw unknown(minor, errno) }
    guard taps[index].process != nil else {
      throw TapError(errno, "minor \(minor) is not attached to a process; attach it first")
    }
    return index
  }

  private func unknown(_ minor: Int, _ errno: Int32) -> TapError {
    TapError(errno, "there is no minor \(minor); `tap-ctl allocate` makes one, `tap-ctl list` shows all")
  }

  private func name(_ index: Int) -> String { taps[index].image?.name ?? "nothing" }
}

extension TapTable: Codable {
  /// Refuses what no daemon wrote.
  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    taps = try container.decode([Tap].self).sorted { $0.minor < $1.minor }
    let isSound =
      Set(taps.map(\.minor)).count == taps.count
      && taps.allSatisfy {
        (0..<Self.limit).contains($0.minor) && ($0.process ?? 1) > 0
          && ($0.image == nil || $0.process != nil && $0.image?.name.isEmpty == false)
      }
    guard isSound else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "taps contradict each other")
    }
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(taps)
  }
}
