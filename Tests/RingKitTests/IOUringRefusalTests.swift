import Glibc
import RingKit
import Testing

/// A machine without io_uring is told what to do about it.
@Suite struct IOUringRefusalTests {
  @Test(arguments: [
    (ENOSYS, "CONFIG_IO_URING"), (EPERM, "kernel.io_uring_disabled"), (ENOMEM, "LimitMEMLOCK"),
    (EINVAL, "io_uring"),
  ])
  func refusalNamesTheMend(code: Int32, words: String) {
    let text = IOUring.refusal(errno: code).description
    #expect(text.contains("io_uring") && text.contains(words), "\(text)")
  }
}
