import Glibc
import RingKit
import Testing

/// Claims on images: among ourselves, and against QEMU's tools in both directions.
@Suite struct ImageLockTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// The modes of a disk.
  enum Mode: String, CaseIterable, Sendable {
    case read = "r"
    case write = "w"
    case sharedRead = "r!"
    case sharedWrite = "w!"

    var isReadOnly: Bool { self == .read || self == .sharedRead }
    var sharing: ImageSharing {
      switch self {
      case .read: .readers
      case .write: .nobody
      case .sharedRead, .sharedWrite: .everybody
      }
    }
  }

  func open(_ path: String, _ mode: Mode, patience: UInt64 = 0) throws(StorageError) -> StorageFile {
    try StorageFile.open(
      path: path, readOnly: mode.isReadOnly, direct: .never, sharing: mode.sharing,
      patienceNanoseconds: patience)
  }

  func conflict(_ path: String, _ mode: Mode, patience: UInt64 = 0) -> ImageConflict? {
    do throws(StorageError) {
      _ = try open(path, mode, patience: patience)
      return nil
    } catch {
      if case .inUse(let conflict) = error.reason { return conflict }
      Issue.record("\(error)")
      return nil
    }
  }

  /// What the second comer is told, nil when both may have it.
  static func expected(_ first: Mode, _ second: Mode) -> ImageConflict? {
    switch (first, second) {
    case (.read, .read), (.read, .sharedRead), (.sharedRead, .read): nil
    case (.sharedRead, .sharedRead), (.sharedRead, .sharedWrite), (.sharedWrite, .sharedRead): nil
    case (.sharedWrite, .sharedWrite): nil
    case (.read, .write), (.read, .sharedWrite): .reader
    case (.sharedRead, .write): .claimed
    case (.sharedWrite, .read), (.sharedWrite, .write), (.write, .write): .writer
    case (.write, .read): .writer
    case (.write, .sharedRead), (.write, .sharedWrite): .exclusive
    }
  }

  @Test(arguments: Mode.allCases, Mode.allCases)
  func twoUsersOfOneImage(_ first: Mode, _ second: Mode) throws {
    let path = try directory.file("image", byteCount: 4096)
    do {
      let held = try open(path, first)
      #expect(held.lockWarning == nil)
      #expect(conflict(path, second) == Self.expected(first, second))
      // Asked twice: a refused claim leaves nothing behind.
      #expect(conflict(path, second) == Self.expected(first, second))
      #expect(conflict(path, first) == Self.expected(first, first))
    }
    for mode in Mode.allCases { #expect(conflict(path, mode) == nil, "let go by \(first)") }
  }

  @Test func whoAsksForNoClaimIsNotInTheWay() throws {
    let path = try directory.file("image", byteCount: 4096)
    let held = try StorageFile.open(path: path, readOnly: false, direct: .never)
    #expect(conflict(path, .write) == nil)
    _ = held
  }

  @Test func messagesNameTheOtherAndTheMend() {
    for conflict in [ImageConflict.writer, .reader, .exclusive, .claimed] {
      let text = StorageError(path: "/images/a", reason: .inUse(conflict)).description
      #expect(text.hasPrefix("/images/a: is in use") && text.contains("detach it there"), "\(text)")
    }
    let text = StorageError(path: "/images/a", reason: .inUse(.writer)).description
    #expect(text.contains("mode w!"))
  }

  /// The claim ends with the object even while a ring keeps the file open, as it does for a moment after a
  /// channel closed.
  @Test func aRegisteredFileDoesNotKeepTheClaim() throws {
    let path = try directory.file("image", byteCount: 4096)
    let ring = try IORing.open(entries: 4)
    do {
      let held = try open(path, .write)
      _ = ring.register(descriptor: held.descriptor)
      #expect(conflict(path, .write) == .writer)
    }
    #expect(conflict(path, .write) == nil)
    _ = ring
  }
}
