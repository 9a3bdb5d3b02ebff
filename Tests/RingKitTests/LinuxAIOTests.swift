import CUring
import Glibc
import RingKit
import Testing

/// What only libaio's side of the ring has: threads for what would wait, and direct transfers that may have to.
@Suite struct LinuxAIOTests {
  let directory: TemporaryDirectory
  let pool: BufferPool
  let ring: IORing

  init() throws {
    directory = try TemporaryDirectory()
    pool = try BufferPool(byteCount: 4 << 20)
    ring = try IORing.open(entries: 16, engine: .aio)
  }

  func open(_ path: String, _ flags: Int32) throws -> Int32 {
    let descriptor = unsafe Glibc.open(path, flags | O_CLOEXEC)
    try #require(descriptor >= 0)
    return descriptor
  }

  @Test(arguments: [0, ringback_o_direct()]) func manyTransfersOfASparseFile(flags: Int32) throws {
    let path = directory.path("sparse")
    close(try open(path, O_CREAT | O_RDWR | O_EXCL))
    try #require(unsafe chmod(path, 0o600) == 0 && truncate(path, 1 << 20) == 0)
    guard try flags == 0 || FileTests.readsDirectly(path) else {
      try Test.cancel("the temporary directory's file system reads nothing directly")
    }
    let descriptor = try open(path, O_RDWR | flags)
    defer { close(descriptor) }
    let file = ring.register(descriptor: descriptor)
    let out = pool.arena.slice(offset: 0, count: 1 << 20)
    let back = pool.arena.slice(offset: 1 << 20, count: 1 << 20)
    pool.fill(out, pattern(0..<(1 << 20)))
    let count = 256
    // Holes are filled and read over each other, far more than fits the submission queue.
    for block in 0..<count {
      let segment = out.slice(offset: UInt(block * 4096), count: 4096)
      ring.write(file, at: UInt64(block * 4096), from: segment, token: UInt64(block))
    }
    let written = try ring.completions(count)
    #expect(written.values.allSatisfy { $0 == [4096] } && written.count == count)
    let table = IOVectorTable(capacity: 2 * count)
    for half in 0..<2 * count { table[half] = back.slice(offset: UInt(half * 2048), count: 2048) }
    for block in 0..<count {
      ring.readv(
        file, at: UInt64(block * 4096), into: table, first: 2 * block, count: 2, token: UInt64(block))
    }
    #expect(try ring.completions(count).values.allSatisfy { $0 == [4096] })
    #expect(pool.bytes(back) == pattern(0..<(1 << 20)))
    #expect(table.capacity == 2 * count)
  }

  @Test func errorsOfThreadsAndOfTheKernelAreTold() throws {
    let path = try directory.file("image", byteCount: 4096)
    let readOnly = try open(path, O_RDONLY)
    defer { close(readOnly) }
    let segment = pool.arena.slice(offset: 0, count: 4096)
    ring.write(IOFile(descriptor: readOnly), at: 0, from: segment, token: 1)
    ring.fallocate(IOFile(descriptor: readOnly), .punchHole, at: 0, byteCount: 4096, token: 2)
    ring.read(IOFile(descriptor: -1), at: 0, into: segment, token: 3)
    ring.pollReadable(IOFile(descriptor: -1), token: 4)
    ring.fsync(IOFile(descriptor: -1), dataOnly: true, token: 5)
    ring.read(
      IOFile(descriptor: readOnly), at: 0, into: IOSegment(address: 8, length: 512), token: 6)
    #expect(
      try ring.completions(6)
        == [1: [-EBADF], 2: [-EBADF], 3: [-EBADF], 4: [-EBADF], 5: [-EBADF], 6: [-EFAULT]])
    guard try FileTests.readsDirectly(path) else {
      try Test.cancel("the temporary directory's file system reads nothing directly")
    }
    let direct = try open(path, O_RDWR | ringback_o_direct())
    defer { close(direct) }
    let file = ring.register(descriptor: direct)
    ring.read(file, at: 0, into: IOSegment(address: 4096, length: 4096), token: 7)
    ring.read(file, at: 1, into: segment, token: 8)
    ring.read(file, at: 0, into: segment, token: 9)
    #expect(try ring.completions(3) == [7: [-EFAULT], 8: [-EINVAL], 9: [4096]])
  }

  @Test func whatCannotBePolledHasNoFsyncEither() throws {
    // An eventfd has no fsync: the kernel's refusal goes through a thread, whose refusal is told.
    let descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(descriptor) }
    ring.fsync(IOFile(descriptor: descriptor), dataOnly: false, token: 1)
    #expect(try ring.completions(1) == [1: [-EINVAL]])
  }

  @Test func aFileGoesWhenItsLastRequestHasEnded() throws {
    // A request that does not end by itself: nothing is ever written here.
    let silent = eventfd(0, Int32(EFD_CLOEXEC))
    let file = ring.register(descriptor: silent)
    close(silent)
    ring.pollReadable(file, token: 1)
    try ring.submit()
    ring.unregister(file)
    // No new request, and no other file in its place, while the old one is under way.
    ring.pollReadable(file, token: 2)
    #expect(try ring.completions(1) == [2: [-EBADF]])
    let other = try open(try directory.file("other", byteCount: 4096), O_RDWR)
    defer { close(other) }
    let second = ring.register(descriptor: other)
    #expect(second.isRegistered && second != file)
    ring.cancel(1, token: 3)
    #expect(try ring.completions(2) == [1: [-ECANCELED], 3: [0]])
    #expect(ring.register(descriptor: other) == file)
    let segment = pool.arena.slice(offset: 0, count: 4096)
    ring.read(second, at: 0, into: segment, token: 4)
    #expect(try ring.completions(1) == [4: [4096]])
    #expect(pool.bytes(segment) == pattern(0..<4096))
  }
}
