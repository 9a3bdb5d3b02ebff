import CUring
import Glibc
import RingKit
import Testing

@Suite struct IORingTests {
  let directory: TemporaryDirectory
  let pool: BufferPool

  init() throws {
    directory = try TemporaryDirectory()
    pool = try BufferPool(byteCount: 1 << 20)
  }

  func open(_ path: String) throws -> Int32 {
    let descriptor = unsafe Glibc.open(path, O_RDWR | O_CLOEXEC)
    try #require(descriptor >= 0)
    return descriptor
  }

  @Test(arguments: bothEngines) func readReturnsBytesAndStopsAtTheEnd(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = try open(directory.file("image", byteCount: 10_000))
    defer { close(descriptor) }
    let file = IOFile(descriptor: descriptor)
    let buffer = try #require(pool.allocate(byteCount: 3 * 4096)).segment
    ring.read(file, at: 100, into: buffer.slice(offset: 0, count: 4096), token: 1)
    ring.read(file, at: 8192, into: buffer.slice(offset: 4096, count: 4096), token: 2)
    ring.read(file, at: 10_000, into: buffer.slice(offset: 8192, count: 4096), token: 3)
    #expect(try ring.completions(3) == [1: [4096], 2: [10_000 - 8192], 3: [0]])
    #expect(pool.bytes(buffer.slice(offset: 0, count: 4096)) == pattern(100..<4196))
    #expect(pool.bytes(buffer.slice(offset: 4096, count: 1808)) == pattern(8192..<10_000))
  }

  @Test(arguments: bothEngines) func writtenBytesAreReadBack(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = try open(directory.file("image", byteCount: 8192))
    defer { close(descriptor) }
    let file = IOFile(descriptor: descriptor)
    let buffer = try #require(pool.allocate(byteCount: 8192)).segment
    let (out, back) = (buffer.slice(offset: 0, count: 4096), buffer.slice(offset: 4096, count: 4096))
    let bytes = pattern(5000..<9096)
    pool.fill(out, bytes)
    ring.write(file, at: 4096, from: out, token: 1)
    #expect(try ring.completions(1) == [1: [4096]])
    ring.fsync(file, dataOnly: true, token: 2)
    ring.fsync(file, dataOnly: false, token: 3)
    #expect(try ring.completions(2) == [2: [0], 3: [0]])
    ring.read(file, at: 4096, into: back, token: 4)
    #expect(try ring.completions(1) == [4: [4096]])
    #expect(pool.bytes(back) == bytes)
  }

  @Test(arguments: bothEngines) func vectoredTransfersKeepTheOrderOfTheTable(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = try open(directory.file("image", byteCount: 16384))
    defer { close(descriptor) }
    let file = IOFile(descriptor: descriptor)
    let buffer = try #require(pool.allocate(byteCount: 16384)).segment
    let table = IOVectorTable(capacity: 5)
    table[1] = buffer.slice(offset: 8192, count: 512)
    table[2] = buffer.slice(offset: 512, count: 1024)
    table[3] = buffer.slice(offset: 4096, count: 4096)
    #expect(table.byteCount(first: 1, count: 3) == 5632)
    #expect(table[0] == IOSegment(address: 0, length: 0))
    ring.readv(file, at: 1024, into: table, first: 1, count: 3, token: 1)
    #expect(try ring.completions(1) == [1: [5632]])
    #expect(pool.bytes(table[1]) == pattern(1024..<1536))
    #expect(pool.bytes(table[2]) == pattern(1536..<2560))
    #expect(pool.bytes(table[3]) == pattern(2560..<6656))
    ring.writev(file, at: 0, from: table, first: 2, count: 2, token: 2)
    #expect(try ring.completions(1) == [2: [5120]])
    ring.read(file, at: 0, into: buffer.slice(offset: 8192, count: 5120), token: 3)
    #expect(try ring.completions(1) == [3: [5120]])
    #expect(pool.bytes(buffer.slice(offset: 8192, count: 5120)) == pattern(1536..<6656))
  }

  @Test func registeredBuffersTransferOnIoUring() throws {
    let ring = try IORing.open(entries: 8, engine: .uring)
    let descriptor = try open(directory.file("image", byteCount: 8192))
    defer { close(descriptor) }
    try ring.registerBuffers([pool.arena])
    let file = IOFile(descriptor: descriptor)
    let buffer = try #require(pool.allocate(byteCount: 8192)).segment
    let (first, second) = (buffer.slice(offset: 0, count: 4096), buffer.slice(offset: 4096, count: 4096))
    ring.readFixed(file, at: 0, into: first, buffer: 0, token: 1)
    #expect(try ring.completions(1) == [1: [4096]])
    #expect(pool.bytes(first) == pattern(0..<4096))
    ring.writeFixed(file, at: 4096, from: first, buffer: 0, token: 2)
    #expect(try ring.completions(1) == [2: [4096]])
    ring.readFixed(file, at: 4096, into: second, buffer: 0, token: 3)
    #expect(try ring.completions(1) == [3: [4096]])
    #expect(pool.bytes(second) == pattern(0..<4096))
    // Memory outside the registration is refused, not read.
    let other = try BufferPool(byteCount: 4096)
    ring.readFixed(file, at: 0, into: other.arena, buffer: 0, token: 4)
    #expect(try ring.completions(1) == [4: [-EFAULT]])
  }

  @Test func libaioRegistersNoBuffers() throws {
    let ring = try IORing.open(entries: 8, engine: .aio)
    #expect(throws: SystemError(call: "io_uring_register_buffers", errno: ENOSYS)) {
      try ring.registerBuffers([pool.arena])
    }
    ring.readFixed(IOFile(descriptor: 0), at: 0, into: pool.arena, buffer: 0, token: 1)
    #expect(try ring.completions(1) == [1: [-EINVAL]])
  }

  @Test(arguments: bothEngines) func registeredFilesOutliveTheirDescriptor(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = try open(directory.file("image", byteCount: 8192))
    let file = ring.register(descriptor: descriptor)
    #expect(file.isRegistered)
    // The ring keeps the file open by itself.
    close(descriptor)
    let first = try #require(pool.allocate(byteCount: 4096)).segment
    ring.read(file, at: 4096, into: first, token: 1)
    ring.fsync(file, dataOnly: true, token: 2)
    #expect(try ring.completions(2) == [1: [4096], 2: [0]])
    #expect(pool.bytes(first) == pattern(4096..<8192))
    ring.unregister(file)
    ring.read(file, at: 0, into: first, token: 5)
    #expect(try ring.completions(1) == [5: [-EBADF]])
  }

  @Test(arguments: bothEngines) func filesBeyondTheTableGoByDescriptor(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = try open(directory.file("image", byteCount: 512))
    defer { close(descriptor) }
    var files: [IOFile] = []
    while files.last?.isRegistered ?? true, files.count < 5000 {
      files.append(ring.register(descriptor: descriptor))
    }
    #expect(files.last == IOFile(descriptor: descriptor))
    ring.unregister(files[3])
    #expect(ring.register(descriptor: descriptor) == files[3])
    #expect(ring.register(descriptor: -1).isRegistered == false)
  }

  @Test(arguments: bothEngines, [5, 8, 9, 100]) func aFullSubmissionQueueLosesNothing(
    engine: IOEngine, count: Int
  ) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    #expect(ring.entries == 8)
    for token in 0..<UInt64(count) { ring.nop(token: token) }
    #expect(ring.enterCount == UInt64((count - 1) / 8))
    #expect(ring.preparedCount == UInt64(count))
    let seen = try ring.completions(count)
    #expect(seen == Dictionary(uniqueKeysWithValues: (0..<UInt64(count)).map { ($0, [0]) }))
    #expect(ring.inFlightCount == 0)
  }

  @Test(arguments: bothEngines) func moreCompletionsThanTheQueueHoldsAllArrive(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let count = Int(ring.completionCapacity) * 5 + 3
    // Completed by being cancelled, all in one stroke, while nobody takes completions.
    let descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(descriptor) }
    for token in 1...UInt64(count) { ring.pollReadable(IOFile(descriptor: descriptor), token: token) }
    try ring.submit()
    ring.cancelAll(token: 0)
    try ring.submit()
    let seen = try ring.completions(count + 1)
    #expect(seen[0] == [Int32(count)])
    #expect(seen.count == count + 1)
    #expect(seen.allSatisfy { $0.key == 0 || $0.value == [-ECANCELED] })
  }

  @Test(arguments: bothEngines) func oneEnterABatchAndNoneForNothing(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    try ring.submitAndWait(minimum: 0)
    #expect(ring.enterCount == 0)
    for token in 0..<5 { ring.nop(token: UInt64(token)) }
    #expect(ring.unsubmittedCount == 5)
    // Five nops complete as they are submitted: the wait has nothing to wait for.
    try ring.submitAndWait(minimum: 5)
    // On libaio the kernel hears nothing of a nop.
    #expect(ring.enterCount == (engine == .uring ? 1 : 0))
    #expect(ring.unsubmittedCount == 0)
    #expect(ring.inFlightCount == 5)
    for token in 0..<5 { #expect(ring.nextCompletion() == IOCompletion(token: UInt64(token), result: 0)) }
    #expect(ring.nextCompletion() == nil)
    #expect(ring.inFlightCount == 0)
  }

  @Test func moreRequestsThanLibaioHoldsAreKeptAndEnd() throws {
    let ring = try IORing.open(entries: 8, engine: .aio)
    let count: UInt64 = 700
    let silent = eventfd(0, Int32(EFD_CLOEXEC))
    let loud = eventfd(1, Int32(EFD_CLOEXEC))
    defer {
      close(silent)
      close(loud)
    }
    // More than the table of requests in flight has: the last of them wait until the first are gone.
    for token in 1...count { ring.pollReadable(IOFile(descriptor: silent), token: token) }
    ring.pollReadable(IOFile(descriptor: loud), token: 9999)
    ring.cancel(count - 1, token: 1000)
    #expect(try ring.completions(2) == [count - 1: [-ECANCELED], 1000: [0]])
    for token in 1...600 as ClosedRange<UInt64> { ring.cancel(token, token: 2000) }
    let seen = try ring.completions(1201)
    #expect(seen[2000] == Array(repeating: 0, count: 600))
    #expect(seen[9999].map { $0.map { $0 & POLLIN } } == [POLLIN])
    ring.cancelAll(token: 3000)
    let rest = try ring.completions(Int(count) - 601 + 1)
    #expect(rest[3000] == [Int32(count) - 601])
    #expect(ring.inFlightCount == 0)
  }

  @Test(arguments: bothEngines) func aRefusedRequestDoesNotHoldUpTheNext(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    // More vectors than the kernel takes is refused when the request is handed over, not when it is done.
    let table = IOVectorTable(capacity: 1100)
    let descriptor = try open(directory.file("image", byteCount: 512))
    defer { close(descriptor) }
    ring.readv(IOFile(descriptor: descriptor), at: 0, into: table, first: 0, count: 1100, token: 1)
    ring.read(IOFile(descriptor: -1), at: 0, into: pool.arena.slice(offset: 0, count: 512), token: 2)
    ring.nop(token: 3)
    try ring.submit()
    #expect(ring.enterCount == 1 && ring.unsubmittedCount == 0)
    #expect(try ring.completions(3) == [1: [-EINVAL], 2: [-EBADF], 3: [0]])
    #expect(table.capacity == 1100)
  }

  @Test(arguments: bothEngines) func cancelEndsAWaitingRequest(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(descriptor) }
    ring.pollReadable(IOFile(descriptor: descriptor), token: 1)
    if engine == .uring {
      ring.read(IOFile(descriptor: descriptor), at: 0, into: pool.arena.slice(offset: 0, count: 8), token: 2)
    } else {
      ring.timeout(atNanoseconds: .max / 4, token: 2)
    }
    try ring.submit()
    #expect(ring.nextCompletion() == nil)
    ring.cancel(1, token: 10)
    ring.cancel(2, token: 11)
    ring.cancel(3, token: 12)
    #expect(
      try ring.completions(5)
        == [1: [-ECANCELED], 2: [-ECANCELED], 10: [0], 11: [0], 12: [-ENOENT]])
  }

  @Test(arguments: bothEngines) func pollCompletesOnceWhenReadable(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(descriptor) }
    ring.pollReadable(IOFile(descriptor: descriptor), token: 1)
    try ring.submit()
    #expect(ring.nextCompletion() == nil)
    eventfd_write(descriptor, 3)
    let seen = try ring.completions(1)
    #expect((seen[1]?.first ?? 0) & POLLIN != 0)
    #expect(ring.inFlightCount == 0)
  }

  @Test(arguments: bothEngines) func timeoutsKeepTheirOwnDeadlines(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let now = MonotonicClock.nowNanoseconds()
    let late = now + 3_600_000_000_000
    // Prepared together, so that a shared place for the time would mix them up.
    ring.timeout(atNanoseconds: late, token: 1)
    ring.timeout(atNanoseconds: now, token: 2)
    ring.timeout(atNanoseconds: late + 1, token: 3)
    #expect(try ring.completions(1) == [2: [-ETIME]])
    ring.moveTimeout(3, toNanoseconds: now, token: 4)
    ring.moveTimeout(2, toNanoseconds: now, token: 5)
    #expect(try ring.completions(3) == [3: [-ETIME], 4: [0], 5: [-ENOENT]])
    ring.cancel(1, token: 6)
    #expect(try ring.completions(2) == [1: [-ECANCELED], 6: [0]])
  }

  @Test(arguments: bothEngines) func timeoutDoesNotFireEarly(engine: IOEngine) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let deadline = MonotonicClock.nowNanoseconds() + 5_000_000
    ring.timeout(atNanoseconds: deadline, token: 1)
    #expect(try ring.completions(1) == [1: [-ETIME]])
    #expect(MonotonicClock.nowNanoseconds() >= deadline)
  }

  @Test(arguments: bothEngines, [IOAllocation.punchHole, .zero]) func rangesReadAsZerosAfterwards(
    engine: IOEngine, mode: IOAllocation
  ) throws {
    let ring = try IORing.open(entries: 8, engine: engine)
    let descriptor = try open(directory.file("image", byteCount: 16384))
    defer { close(descriptor) }
    let file = IOFile(descriptor: descriptor)
    ring.fallocate(file, mode, at: 4096, byteCount: 8192, token: 1)
    let result = try ring.completions(1)[1]
    // tmpfs knows holes only.
    if mode == .zero && result == [-EOPNOTSUPP] { return }
    #expect(result == [0])
    let buffer = try #require(pool.allocate(byteCount: 16384)).segment
    ring.read(file, at: 0, into: buffer, token: 2)
    #expect(try ring.completions(1) == [2: [16384]])
    #expect(
      pool.bytes(buffer) == pattern(0..<4096) + [UInt8](repeating: 0, count: 8192) + pattern(12288..<16384))
  }

  @Test(arguments: [
    (ENOSYS, "CONFIG_IO_URING"), (EPERM, "kernel.io_uring_disabled=0"), (ENOMEM, "LimitMEMLOCK=infinity"),
    (EMFILE, "LimitNOFILE"), (EINVAL, "Linux 6.1"),
  ]) func aRefusalSaysWhatToDo(code: Int32, hint: String) {
    let text = IORing.refusal(errno: code).description
    #expect(text.hasPrefix("io_uring: "))
    #expect(text.contains(hint), "\(text)")
  }
}
