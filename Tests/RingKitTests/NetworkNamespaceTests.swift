import Glibc
import RingKit
import Testing

/// Networks that nothing outside can see.
@Suite(.enabled(if: tapObstacle == nil, "\(tapObstacle ?? "")"))
struct NetworkNamespaceTests {
  @Test func whatIsMadeInsideIsNotOutside() throws {
    let name = "inside0"
    let network = try NetworkNamespace()
    let device = try network.inside { try TapDevice(creating: name) }
    #expect(try LinkControl().status(name: name) == nil)
    #expect(try network.run { try LinkControl().status(name: name)?.index } == device.index)
    #expect(try network.inside { try LinkControl().all().map(\.name) } == ["lo", name])
    // A program started from there is there, and it ends when the network's owner has gone elsewhere.
    try network.ip("link set dev \(name) mtu 1300")
    #expect(try device.mtu == 1300)
    #expect(try NetworkNamespace().inside { try LinkControl().all().map(\.name) } == ["lo"])
  }

  @Test func anErrorInsideComesOut() throws {
    struct Trouble: Error {}
    let network = try NetworkNamespace()
    #expect(throws: Trouble.self) { try network.run { throw Trouble() } }
    #expect(throws: Trouble.self) { try network.inside { throw Trouble() } }
    do {
      try network.ip("link set dev nothere up")
      Issue.record("ip found what is not there")
    } catch {
      let failure = try #require(error as? ToolFailure)
      #expect(failure.end == .exited(status: 1))
      #expect("\(failure)".contains("ip link set dev nothere up") && failure.words.contains("nothere"))
    }
    #expect(throws: SystemError.self) { try network.execute("no-such-program", []) }
  }

  @Test(.enabled(if: NetworkNamespace.path(of: "ping") != nil, "Debian's package iputils-ping is missing"))
  func addressesAnswer() throws {
    let network = try NetworkNamespace()
    #expect(throws: ToolFailure.self) { try network.execute("ping", ["-c1", "-W1", "10.1.2.1"]) }
    try network.addBridge("br0")
    try network.setUp("lo")
    try network.addAddress("10.1.2.1/24", to: "br0")
    try network.addAddress("fd00:1::1/64", to: "br0")
    try network.execute("ping", ["-c1", "-W5", "10.1.2.1"])
    try network.execute("ping", ["-6", "-c1", "-W5", "fd00:1::1"])
  }
}
