import Glibc

/// One page of a file that other processes of this machine may read while it changes. The name goes with this
/// object.
@safe
public final class SharedPage {
  private let pages: MappedPages
  private let path: String

  /// Makes a new file of one page of zeros at `path`, readable by its owner's user and group. Throws when
  /// anything is there already.
  public init(path: String) throws(SystemError) {
    // Sound: the path is copied by the call; O_EXCL and O_NOFOLLOW keep us from a file that another user put
    // there.
    let fd = unsafe open(path, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0o640)
    guard fd >= 0 else { throw SystemError(call: "create \(path)", errno: errno) }
    defer { close(fd) }
    // Sound: the kernel chooses the address, the file is as long as the mapping, nobody but us may shorten it,
    // and the mapping is handed to the one owner that unmaps it.
    let mapping =
      unsafe ftruncate(fd, off_t(pageByteCount)) == 0
      ? unsafe mmap(nil, pageByteCount, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED
    guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
      let failure = errno
      unsafe unlink(path)
      throw SystemError(call: "map \(path)", errno: failure)
    }
    pages = unsafe MappedPages(base: mapping, pageCount: 1) { base, _ in unsafe munmap(base, pageByteCount) }
    self.path = path
  }

  deinit { unsafe unlink(path) }

  /// Replaces words from the page's begin, each written once; a reader may see some new and some old.
  public func set(_ words: [UInt64]) { pages.setWords(words, at: 0) }
}
