import COracle
import Glibc
import RingKit
import Testing

/// A machine without io_uring is served by libaio; without both it is told what to do.
@Suite struct IOEngineTests {
  @Test(arguments: [
    (ENOSYS, "CONFIG_IO_URING"), (EPERM, "kernel.io_uring_disabled"), (ENOMEM, "LimitMEMLOCK"),
    (EINVAL, "io_uring"),
  ])
  func aRefusalOfIoUringNamesTheMend(code: Int32, words: String) {
    let text = IORing.refusal(errno: code).description
    #expect(text.contains("io_uring") && text.contains(words), "\(text)")
  }

  @Test(arguments: [
    ("io_setup", EAGAIN, "fs.aio-max-nr"), ("io_setup", ENOSYS, "CONFIG_AIO"), ("io_setup", EPERM, "seccomp"),
    ("eventfd", EMFILE, "eventfd"),
  ])
  func aRefusalOfLibaioNamesTheMend(call: String, code: Int32, words: String) {
    let text = IORing.aioRefusal(SystemError(call: call, errno: code)).description
    #expect(text.hasPrefix("libaio: ") && text.contains(words), "\(text)")
  }

  @Test func theChoiceIsIoUringWhereItIsAllowed() throws {
    let ring = try IORing.open(entries: 4)
    #expect(ring.engine == .uring && ring.fallbackReason == nil)
  }

  @Test func whereIoUringIsForbiddenLibaioServes() async {
    await #expect(processExitsWith: .success) {
      try #require(ringback_test_refuse(1, 0, EPERM) == 0)
      let ring = try IORing.open(entries: 4)
      try #require(ring.engine == .aio)
      let reason = try #require(ring.fallbackReason)
      try #require(reason.description.contains("kernel.io_uring_disabled=0"))
      ring.nop(token: 7)
      try #require(try ring.completions(1) == [7: [0]])
    }
  }

  @Test func whereTheKernelHasNoIoUringADataThreadRuns() async {
    await #expect(processExitsWith: .success) {
      try #require(ringback_test_refuse(1, 0, ENOSYS) == 0)
      let thread = try DataThread<ScriptedQueue>(number: 0, hypervisor: FakeHypervisor())
      try #require(thread.engine == .aio)
      try #require(thread.engineFallback?.description.contains("CONFIG_IO_URING") == true)
      try #require(try thread.ask { $0.ring.engine } == .aio)
      try #require(try thread.end() == nil)
    }
  }

  @Test func aForcedIoUringThatIsForbiddenIsRefusedInWords() async {
    await #expect(processExitsWith: .success) {
      try #require(ringback_test_refuse(1, 0, EPERM) == 0)
      do throws(HostError) {
        _ = try IORing.open(entries: 4, engine: .uring)
        exit(3)
      } catch {
        let text = error.description
        try #require(text.contains("kernel.io_uring_disabled=0") && text.contains("choose aio"))
      }
    }
  }

  @Test func withoutBothTheMessageNamesBoth() async {
    await #expect(processExitsWith: .success) {
      try #require(ringback_test_refuse(1, 1, EPERM) == 0)
      do throws(HostError) {
        _ = try IORing.open(entries: 4)
        exit(3)
      } catch {
        let text = error.description
        try #require(text.contains("kernel.io_uring_disabled=0") && text.contains("allow io_setup"))
      }
    }
  }
}
