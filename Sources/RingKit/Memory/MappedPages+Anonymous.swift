import Glibc

extension MappedPages {
  /// `pageCount` zeroed pages of this process's own memory: what frontends share, and what simulations and
  /// tests use as a guest's memory. Throws the error of `mmap`.
  public static func anonymous(pageCount: Int) throws(SystemError) -> MappedPages {
    precondition(pageCount > 0)
    // Sound: the kernel chooses the address, and the mapping is handed to the one owner that unmaps it.
    let mapping = unsafe mmap(
      nil, pageCount * pageByteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
      throw SystemError(call: "mmap", errno: errno)
    }
    return unsafe MappedPages(base: mapping, pageCount: pageCount) { base, count in
      unsafe munmap(base, count * pageByteCount)
    }
  }
}
