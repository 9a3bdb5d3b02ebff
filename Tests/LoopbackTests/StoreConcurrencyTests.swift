import RingKit
import Testing

@testable import Loopback

/// Several clients of libxenstore at once.
@Suite("Store: concurrent clients")
struct StoreConcurrencyTests {
  /// No update is lost between transactions of different connections.
  @Test func transactionsAddUp() async throws {
    let store = try StoreFixture()
    let path = store.socket()
    try StoreClient(socketPath: path).write("/count", "0")
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<4 {
        group.addTask {
          let client = try StoreClient(socketPath: path)
          for _ in 0..<50 {
            try client.transaction(attempts: 100_000) { session throws(StoreError) in
              let count = try session.decimal("/count", in: 0...1000)
              try session.write("/count", "\(count + 1)")
            }
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(try StoreClient(socketPath: path).read("/count") == "200")
    #expect(try StoreRawClient(path).ask(.control, "check|") == "OK|")
  }

  /// Domains that come, write their nodes and go while others do the same.
  @Test func domainsComeAndGo() async throws {
    let store = try StoreFixture()
    let server = store.server
    let directory = store.directory
    try await withThrowingTaskGroup(of: Void.self) { group in
      for domain in 1...8 as ClosedRange<UInt16> {
        group.addTask {
          for round in 0..<10 {
            try server.introduce(domain: domain)
            let client = try StoreClient(
              socketPath: StoreServer.socketPath(in: directory, domain: domain))
            try client.write("device/vbd/768/state", "\(round)")
            let path = "/local/domain/\(domain)/device/vbd/768/state"
            #expect(try client.read(path) == "\(round)")
            server.release(domain: domain)
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(try store.tool("list", "/local/domain").output == "0\n")
    #expect(try StoreRawClient(store.socket()).ask(.control, "check|") == "OK|")
  }
}
