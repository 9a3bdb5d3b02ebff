import Glibc
import RingKit
import Testing

@testable import Loopback

/// Machine and xenstore together.
@Suite struct MachineHostTests {
  @Test func aDomainThatDiesLeavesTheStore() throws {
    let directory = try makeTemporaryDirectory()
    let host = try LoopbackHost(directory: directory)
    defer {
      host.stop()
      _ = unsafe rmdir(directory)
    }
    let front = DomainID(rawValue: 4)
    try host.addDomain(front)
    let store = try host.hypervisor(for: DomainID(rawValue: 0)).openStore()
    try store.watch("@releaseDomain", token: "gone")
    do {
      let hypervisor = try host.hypervisor(for: front)
      let own = try hypervisor.openStore()
      try own.write("device/vbd/51712/state", "1")
      #expect(try store.read("/local/domain/4/device/vbd/51712/state") == "1")
      while try store.nextWatchEvent() != nil {}
      withExtendedLifetime(hypervisor) {}
    }
    guard isReadable(store.descriptor, milliseconds: 10_000) else {
      throw TestFailure(description: "no @releaseDomain within 10 s")
    }
    #expect(try store.nextWatchEvent()?.token == "gone")
    #expect(try store.read("/local/domain/4/device/vbd/51712/state") == nil)
  }

  @Test func aDomainThatWasNotAddedHasNoStore() throws {
    let directory = try makeTemporaryDirectory()
    let host = try LoopbackHost(directory: directory)
    defer {
      host.stop()
      _ = unsafe rmdir(directory)
    }
    let error = #expect(throws: HostError.self) {
      _ = try host.hypervisor(for: DomainID(rawValue: 4)).openStore()
    }
    #expect(error?.description.contains("was domain 4 added") == true)
  }

  @Test func everythingIsRemovedAtTheEnd() throws {
    let directory = try makeTemporaryDirectory() + "/new"
    let host = try LoopbackHost(directory: directory)
    try host.addDomain(DomainID(rawValue: 1))
    host.stop()
    host.stop()
    #expect(unsafe rmdir(directory) == 0, "the directory is empty: errno \(errno)")
    _ = unsafe rmdir(String(directory.dropLast(4)))
  }
}
