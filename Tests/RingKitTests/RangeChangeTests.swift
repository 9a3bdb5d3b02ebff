import COracle
import CUring
import Glibc
import RingKit
import Testing

/// Ranges given back and zeroed, on real files and on loop devices.
@Suite(.serialized) struct RangeChangeTests {
  let directory: TemporaryDirectory
  let journal = Journal()

  init() throws { directory = try TemporaryDirectory() }

  /// Does one change on a data thread and tells its result.
  func change(
    _ change: RangeChange, of storage: StorageFile, engine: IOEngine, at offset: UInt64, byteCount: UInt64
  ) throws -> Int32 {
    var configuration = DataThreadConfiguration()
    configuration.ringEntries = 16
    configuration.poolByteCount = 1 << 20
    configuration.engine = engine
    let thread = try DataThread<ScriptedQueue>(
      number: 0, hypervisor: FakeHypervisor(), configuration: configuration)
    let journal = journal
    let begun = journal.all.count
    let isMade = try thread.ask { loop -> Bool in
      let queue = ScriptedQueue("a", journal, loop)
      guard (try? loop.prepareChanges()) != nil, let key = loop.add(queue) else { return false }
      let file = loop.ring.register(descriptor: storage.descriptor)
      loop.change(change, of: storage, as: file, at: offset, byteCount: byteCount, token: key.token(7))
      return true
    }
    try #require(isMade == true)
    let line = try journal.wait(begun + 1)[begun]
    #expect(try thread.end() == nil)
    return try #require(line.split(separator: ":").last.flatMap { Int32($0.dropFirst()) }, "\(line)")
  }

  func bytes(_ path: String, _ range: Range<Int>) throws -> [UInt8] {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0xEE, count: range.count)
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe pread(descriptor, $0.baseAddress, $0.count, range.lowerBound)
    }
    try #require(count == range.count)
    return bytes
  }

  func allocatedByteCount(_ path: String) -> Int {
    var status = stat()
    // Sound: the call fills the local variable.
    return unsafe stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : -1
  }

  @Test(arguments: bothEngines, [RangeChange.giveBack, .zero])
  func filesGetHolesOrZeros(engine: IOEngine, what: RangeChange) throws {
    let path = try directory.file("image", byteCount: 1 << 20)
    let before = allocatedByteCount(path)
    let file = try StorageFile.open(path: path, readOnly: false, direct: .preferred)
    let support = file.rangeSupport(for: what)
    // Asking changes nothing.
    #expect(allocatedByteCount(path) == before)
    #expect(try bytes(path, 0..<(1 << 20)) == pattern(0..<(1 << 20)))
    guard let support else {
      try Test.cancel("the file system of \(directory.path) makes no holes")
    }
    #expect(!support.isSecurePossible && file.rangeSupport(for: .giveBackSecurely) == nil)
    #expect(support.unitByteCount >= 512 && support.unitByteCount.nonzeroBitCount == 1)
    #expect(try change(what, of: file, engine: engine, at: 65536, byteCount: 524_288) == 0)
    #expect(try bytes(path, 0..<65536) == pattern(0..<65536))
    #expect(try bytes(path, 65536..<589_824).allSatisfy { $0 == 0 })
    #expect(try bytes(path, 589_824..<(1 << 20)) == pattern(589_824..<(1 << 20)))
    if what == .giveBack { #expect(allocatedByteCount(path) <= before - 524_288) }
    #expect(try file.currentByteCount() == 1 << 20)
    if what == .zero {
      // Any bytes: nothing around them changes.
      #expect(support.unitByteCount == 512)
      #expect(try change(what, of: file, engine: engine, at: 512, byteCount: 1024) == 0)
      #expect(
        try bytes(path, 0..<4096)
          == pattern(0..<512) + [UInt8](repeating: 0, count: 1024) + pattern(1536..<4096))
    }
  }

  @Test(.enabled(if: unsafe access("/dev/shm", W_OK) == 0, "needs a writable /dev/shm"))
  func tmpfsZeroesByHoles() throws {
    let path = "/dev/shm/ringkit-\(getpid())-zero"
    let descriptor = unsafe open(path, O_CREAT | O_RDWR | O_EXCL, 0o600)
    try #require(descriptor >= 0)
    defer {
      close(descriptor)
      unsafe _ = unlink(path)
    }
    let data = pattern(0..<16384)
    try #require(unsafe data.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) } == 16384)
    let file = try StorageFile.open(path: path, readOnly: false, direct: .never)
    #expect(file.rangeSupport(for: .zero)?.unitByteCount == 512)
    #expect(try change(.zero, of: file, engine: .uring, at: 4096, byteCount: 4096) == 0)
    #expect(
      try bytes(path, 0..<16384)
        == pattern(0..<4096) + [UInt8](repeating: 0, count: 4096) + pattern(8192..<16384))
  }

  @Test func readOnlyMediaTakeNothingBack() throws {
    let path = try directory.file("image", byteCount: 8192)
    let file = try StorageFile.open(path: path, readOnly: true, direct: .never)
    for what in [RangeChange.giveBack, .giveBackSecurely, .zero] {
      #expect(file.rangeSupport(for: what) == nil)
    }
  }

  @Test(arguments: bothEngines, [512, 4096])
  func loopDevicesServeTheirSectors(engine: IOEngine, sectorByteCount: Int) throws {
    let image = try directory.file("image", byteCount: 4 << 20)
    let device = try LoopDevice.forTest(image, sectorByteCount: sectorByteCount)
    defer { device.detach() }
    let file = try StorageFile.open(path: device.path, readOnly: false, direct: .always)
    #expect(file.isBlockDevice && file.isDirect && file.byteCount == 4 << 20)
    #expect(file.logicalBlockByteCount == sectorByteCount)
    #expect(file.physicalBlockByteCount >= sectorByteCount)
    // A loop device never erases for certain.
    #expect(file.rangeSupport(for: .giveBackSecurely) == nil)
    #expect(file.rangeSupport(for: .giveBack)?.isSecurePossible != true)
    let zero = try #require(file.rangeSupport(for: .zero))
    #expect(zero.unitByteCount == sectorByteCount)
    let ring = try IORing.open(entries: 4, engine: engine)
    let pool = try BufferPool(byteCount: 65536)
    let target = ring.register(descriptor: file.descriptor)
    let piece = pool.arena.slice(offset: 0, count: UInt(sectorByteCount))
    ring.read(target, at: UInt64(3 * sectorByteCount), into: piece, token: 1)
    #expect(try ring.completions(1) == [1: [Int32(sectorByteCount)]])
    #expect(pool.bytes(piece) == pattern(3 * sectorByteCount..<4 * sectorByteCount))
    // Less than its sector is refused, not rounded.
    if sectorByteCount == 4096 {
      ring.read(target, at: 512, into: pool.arena.slice(offset: 0, count: 4096), token: 2)
      ring.read(target, at: 0, into: pool.arena.slice(offset: 0, count: 512), token: 3)
      #expect(try ring.completions(2) == [2: [-EINVAL], 3: [-EINVAL]])
    }
    #expect(
      try change(
        .zero, of: file, engine: engine, at: UInt64(sectorByteCount), byteCount: UInt64(2 * sectorByteCount))
        == 0)
    ring.read(target, at: 0, into: pool.arena.slice(offset: 0, count: UInt(4 * sectorByteCount)), token: 4)
    #expect(try ring.completions(1) == [4: [Int32(4 * sectorByteCount)]])
    #expect(
      pool.bytes(pool.arena.slice(offset: 0, count: UInt(4 * sectorByteCount)))
        == pattern(0..<sectorByteCount) + [UInt8](repeating: 0, count: 2 * sectorByteCount)
        + pattern(3 * sectorByteCount..<4 * sectorByteCount))
    if let giveBack = file.rangeSupport(for: .giveBack) {
      #expect(giveBack.unitByteCount >= sectorByteCount)
      let before = allocatedByteCount(image)
      #expect(try change(.giveBack, of: file, engine: engine, at: 1 << 20, byteCount: 1 << 20) == 0)
      #expect(allocatedByteCount(image) <= before - (1 << 20))
      #expect(try bytes(image, (2 << 20)..<(2 << 20) + 4096) == pattern((2 << 20)..<(2 << 20) + 4096))
    }
    // It grows under us.
    try #require(unsafe truncate(image, 5 << 20) == 0)
    try #require(device.followSize())
    #expect(try file.currentByteCount() == 5 << 20)
    ring.read(target, at: (5 << 20) - 4096, into: pool.arena.slice(offset: 0, count: 4096), token: 5)
    #expect(try ring.completions(1) == [5: [4096]])
  }

  @Test func aRaggedTailOfAGrownFileIsLeftOut() throws {
    let path = try directory.file("image", byteCount: 8192)
    let file = try StorageFile.open(path: path, readOnly: false, direct: .preferred)
    let block = file.logicalBlockByteCount
    try #require(unsafe truncate(path, 12288 + 700) == 0)
    let size = try file.currentSize()
    #expect(Int(size.byteCount) == (12288 + 700) / block * block)
    #expect(size.tailByteCount == (12288 + 700) % block)
  }
}

/// A loop device over a file, as root may have.
struct LoopDevice {
  let path: String
  private let descriptor: Int32

  /// A loop device; where there is none to be had, the test ends as one that was not run.
  static func forTest(_ image: String, sectorByteCount: Int) throws -> LoopDevice {
    guard let device = LoopDevice(image, sectorByteCount: sectorByteCount) else {
      try Test.cancel("no loop device is to be had: root and /dev/loop-control are needed")
    }
    return device
  }

  private init?(_ image: String, sectorByteCount: Int) {
    let control = unsafe open("/dev/loop-control", O_RDWR | O_CLOEXEC)
    guard control >= 0 else { return nil }
    defer { close(control) }
    let file = unsafe open(image, O_RDWR | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    // Another test may take the free one first.
    for _ in 0..<16 {
      let number = ringback_test_loop_free(control)
      guard number >= 0 else { return nil }
      let path = "/dev/loop\(number)"
      let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
      guard descriptor >= 0 else { return nil }
      if ringback_test_loop_attach(descriptor, file, UInt32(sectorByteCount)) == 0 {
        self.path = path
        self.descriptor = descriptor
        return
      }
      close(descriptor)
      guard errno == EBUSY else { return nil }
    }
    return nil
  }

  /// Has the device take its file's size over.
  func followSize() -> Bool { ringback_test_loop_follow_size(descriptor) == 0 }

  /// Takes the file away, once nobody has the device open.
  func detach() {
    _ = ringback_test_loop_detach(descriptor)
    close(descriptor)
  }
}
