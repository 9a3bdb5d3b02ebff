import CUring
import Glibc
import RingKit
import Testing

@Suite struct FileTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  func error(_ path: String, readOnly: Bool = false, direct: DirectPolicy = .never) -> StorageError? {
    do throws(StorageError) {
      _ = try StorageFile.open(path: path, readOnly: readOnly, direct: direct)
      return nil
    } catch { return error }
  }

  @Test(arguments: DirectPolicy.allCases) func unsuitablePathsAreRefusedInWords(direct: DirectPolicy) throws {
    let missing = directory.path("missing")
    #expect(error(missing, direct: direct)?.reason == .missing)
    #expect(error(missing + "/below", direct: direct)?.reason == .missing)
    #expect(error(directory.path, direct: direct)?.reason == .unsuitable("a directory"))
    #expect(error(directory.path, readOnly: true, direct: direct)?.reason == .unsuitable("a directory"))
    #expect(error("/dev/null", direct: direct)?.reason == .unsuitable("a character device"))
    let fifo = directory.path("fifo")
    try #require(unsafe mkfifo(fifo, 0o600) == 0)
    // A fifo would block the open until somebody writes.
    #expect(error(fifo, readOnly: true, direct: direct)?.reason == .unsuitable("a fifo"))
    #expect(error(try directory.file("empty", byteCount: 0), direct: direct)?.reason == .empty)
    let ragged = try directory.file("ragged", byteCount: 1025)
    #expect(error(ragged, direct: direct)?.reason == .ragged(byteCount: 1025, multiple: 512))
    let file = try directory.file("file", byteCount: 512)
    #expect(error(file + "/below", direct: direct)?.reason == .missing)
  }

  @Test func everyMessageNamesThePathAndTheMend() {
    let reasons: [(StorageError.Reason, String)] = [
      (.missing, "truncate -s 10G /images/a"), (.permission, "give this daemon's user"),
      (.unsuitable("a fifo"), "is a fifo; a disk is a regular file or a block device"),
      (.empty, "give it a size first"),
      (.ragged(byteCount: 1025, multiple: 512), "truncate -s %512 /images/a"),
      (.readOnlyMedium, "attach it read-only"), (.directRefused, "allow buffered I/O"), (.busy, "detach it"),
      (.system(SystemError(call: "open", errno: EIO)), "open: Input/output error"),
    ]
    for (reason, hint) in reasons {
      let text = StorageError(path: "/images/a", reason: reason).description
      #expect(text.hasPrefix("/images/a: ") && text.contains(hint), "\(text)")
    }
  }

  @Test func permissionIsNamed() throws {
    // The superuser may open anything.
    if geteuid() == 0 { return }
    let path = try directory.file("locked", byteCount: 512)
    try #require(unsafe chmod(path, 0o400) == 0)
    #expect(error(path)?.reason == .permission)
    #expect(error(path, readOnly: true) == nil)
  }

  @Test(arguments: bothEngines) func aReadOnlyFileRefusesWrites(engine: IOEngine) throws {
    let path = try directory.file("image", byteCount: 4096)
    let file = try StorageFile.open(path: path, readOnly: true, direct: .never)
    #expect(file.isReadOnly && !file.isBlockDevice && !file.isDirect && file.byteCount == 4096)
    let ring = try IORing.open(entries: 4, engine: engine)
    let pool = try BufferPool(byteCount: 4096)
    ring.write(IOFile(descriptor: file.descriptor), at: 0, from: pool.arena, token: 1)
    #expect(try ring.completions(1) == [1: [-EBADF]])
  }

  @Test func linksLeadToTheImage() throws {
    let path = try directory.file("image", byteCount: 1024)
    let link = directory.path("link")
    try #require(unsafe symlink(path, link) == 0)
    let file = try StorageFile.open(path: link, readOnly: false, direct: .never)
    #expect(file.byteCount == 1024 && file.path == link)
    #expect(file.logicalBlockByteCount == 512)
  }

  @Test func theDescriptorIsClosedWithTheObjectAndAcrossExec() throws {
    let path = try directory.file("image", byteCount: 1024)
    var file: StorageFile? = try StorageFile.open(path: path, readOnly: false, direct: .never)
    let descriptor = try #require(file?.descriptor)
    #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
    let before = StatusOf.descriptor(descriptor)
    file = nil
    // Another test may have the number by now, but not the file.
    #expect(StatusOf.descriptor(descriptor) != before)
  }

  @Test(arguments: bothEngines, [DirectPolicy.always, .preferred])
  func directTransfersObeyTheReportedAlignment(engine: IOEngine, direct: DirectPolicy) throws {
    let path = try directory.file("image", byteCount: 1 << 20)
    let works = try Self.readsDirectly(path)
    let file: StorageFile
    do throws(StorageError) {
      file = try StorageFile.open(path: path, readOnly: false, direct: direct)
    } catch {
      // Some file systems have no direct I/O; then it must say so.
      #expect(!works && direct == .always && error.reason == .directRefused)
      return
    }
    #expect(file.isDirect == works)
    #expect(file.isDirect == (file.directFallback == nil))
    #expect(file.isDirect == (fcntl(file.descriptor, F_GETFL) & ringback_o_direct() != 0))
    #expect(file.logicalBlockByteCount >= 512 && file.logicalBlockByteCount.nonzeroBitCount == 1)
    #expect(file.memoryAlignment.nonzeroBitCount == 1)
    #expect(file.physicalBlockByteCount >= file.logicalBlockByteCount)
    let ring = try IORing.open(entries: 4, engine: engine)
    let pool = try BufferPool(byteCount: 16384)
    let block = UInt(file.logicalBlockByteCount)
    let alignment = file.isDirect ? UInt(file.memoryAlignment) : 1
    let target = IOFile(descriptor: file.descriptor)
    let first = pool.arena.slice(offset: alignment, count: block)
    ring.read(target, at: UInt64(3 * block), into: first, token: 1)
    #expect(try ring.completions(1) == [1: [Int32(block)]])
    #expect(pool.bytes(first) == pattern(Int(3 * block)..<Int(4 * block)))
    ring.write(target, at: UInt64(block), from: first, token: 2)
    #expect(try ring.completions(1) == [2: [Int32(block)]])
    let second = pool.arena.slice(offset: 8192, count: block)
    ring.read(target, at: UInt64(block), into: second, token: 3)
    #expect(try ring.completions(1) == [3: [Int32(block)]])
    #expect(pool.bytes(second) == pattern(Int(3 * block)..<Int(4 * block)))
  }

  /// True when the file system reads an aligned page with O_DIRECT.
  static func readsDirectly(_ path: String) throws -> Bool {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | ringback_o_direct())
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    let pool = try BufferPool(byteCount: 4096)
    let ring = try IORing.open(entries: 4)
    ring.read(IOFile(descriptor: descriptor), at: 0, into: pool.arena, token: 1)
    return try ring.completions(1) == [1: [4096]]
  }

  @Test func theSizeNowFollowsAResize() throws {
    let path = try directory.file("image", byteCount: 1024)
    let file = try StorageFile.open(path: path, readOnly: false, direct: .never)
    try #require(unsafe truncate(path, 4096) == 0)
    #expect(try file.currentByteCount() == 4096)
    #expect(file.byteCount == 1024)
    try #require(unsafe truncate(path, 4097) == 0)
    // Whole blocks; the rest is told.
    let size = try file.currentSize()
    #expect(size.byteCount == 4096 && size.tailByteCount == 1)
    try #require(unsafe truncate(path, 511) == 0)
    #expect(throws: StorageError(path: path, reason: .empty)) { try file.currentByteCount() }
  }
}

/// What file a descriptor leads to.
enum StatusOf {
  static func descriptor(_ descriptor: Int32) -> [UInt64] {
    var status = stat()
    // Sound: the call fills the local variable.
    guard unsafe fstat(descriptor, &status) == 0 else { return [] }
    return [UInt64(status.st_dev), UInt64(status.st_ino)]
  }
}
