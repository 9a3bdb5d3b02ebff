import CUring
import Glibc
import RingKit
import Testing

/// What every test of I/O runs on.
let bothEngines: [IOEngine] = [.uring, .aio]

/// A directory that goes away with the test.
final class TemporaryDirectory {
  let path: String

  init() throws {
    var template = Array("/tmp/ringkit-XXXXXX".utf8CString)
    let made = unsafe template.withUnsafeMutableBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return false }
      return unsafe mkdtemp(start) != nil
    }
    guard made else { throw SystemError(call: "mkdtemp", errno: errno) }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    for name in entries { unsafe _ = unlink(path + "/" + name) }
    unsafe _ = rmdir(path)
  }

  private var entries: [String] = []

  /// The path of a file that will be removed.
  func path(_ name: String) -> String {
    entries.append(name)
    return path + "/" + name
  }

  /// Makes a file of `byteCount` bytes; byte i is `i * 7 + i / 256`, truncated.
  func file(_ name: String, byteCount: Int) throws -> String {
    let path = path(name)
    let descriptor = unsafe Glibc.open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    let bytes = pattern(0..<byteCount)
    let written = unsafe bytes.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
    try #require(written == byteCount)
    return path
  }
}

/// The bytes that ``TemporaryDirectory/file(_:byteCount:)`` writes at these offsets.
func pattern(_ range: Range<Int>) -> [UInt8] {
  range.map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 256) }
}

extension IORing {
  /// Submits, and waits for `count` completions; fails instead of waiting longer than ten seconds.
  func completions(_ count: Int) throws -> [UInt64: [Int32]] {
    let guardToken = UInt64.max
    timeout(atNanoseconds: MonotonicClock.nowNanoseconds() + 10_000_000_000, token: guardToken)
    var seen: [UInt64: [Int32]] = [:]
    var missing = count
    while missing > 0 {
      try submitAndWait(minimum: 1)
      while let completion = nextCompletion() {
        try #require(completion.token != guardToken, "\(missing) of \(count) completions did not come")
        seen[completion.token, default: []].append(completion.result)
        missing -= 1
      }
    }
    cancel(guardToken, token: guardToken)
    var ends = 2
    while ends > 0 {
      try submitAndWait(minimum: 1)
      while let completion = nextCompletion() {
        try #require(completion.token == guardToken, "a completion too many: \(completion)")
        ends -= 1
      }
    }
    return seen
  }
}

extension BufferPool {
  func bytes(_ segment: IOSegment) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: Int(segment.length))
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    copyOut(segment, into: &raw)
    return bytes
  }

  func fill(_ segment: IOSegment, _ bytes: [UInt8]) {
    unsafe copyIn(bytes.span.bytes, to: segment)
  }
}

/// A small generator with a seed, so that a failure can be repeated.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }
}
