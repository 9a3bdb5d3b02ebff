import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// Interfaces beside the disks in the commands that tell of them, through the real program.
@Suite struct VifCommandTests {
  /// Why a daemon cannot serve interfaces here; nil when it can.
  static let obstacle: String? = {
    if geteuid() != 0 { return "TAPs need root (CAP_NET_ADMIN)" }
    if !FileManager.default.fileExists(atPath: "/dev/net/tun") { return "this machine has no /dev/net/tun" }
    do { _ = try NetworkNamespace() } catch { return "no network namespace can be made: \(error)" }
    return NetworkNamespace.path(of: "ip") == nil ? "Debian's package iproute2 is missing" : nil
  }()

  private func expect(
    _ outcome: Command.Outcome, status: Int32 = 0, _ words: String...,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let text = outcome.output + outcome.errors
    #expect(outcome.status == status, "\(text)", sourceLocation: sourceLocation)
    for word in words { #expect(text.contains(word), "\(text)", sourceLocation: sourceLocation) }
  }

  private func objects(_ outcome: Command.Outcome) throws -> [[String: Any]] {
    try #require(
      JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [[String: Any]], "\(outcome.output)")
  }

  /// Interfaces come from xenstore, whoever serves them, or nobody.
  @Test(.timeLimit(.minutes(10)))
  func interfacesAreListedWithoutADaemon() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    #expect(try Command.run(["list"] + stage.host).output == "no disks\n")
    #expect(try Command.run(["list", "--kind", "vif"] + stage.host).output == "no interfaces\n")
    let hypervisor = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 0))
    let toolstack = try Toolstack<InterfaceHandle>(host: hypervisor, kind: DaemonVifs.kind)
    let mac = "00:16:3e:01:02:03"
    try toolstack.attach(
      DomainID(rawValue: 1), InterfaceHandle(number: 2), frontendNodes: [], backendNodes: [("mac", mac)])
    try toolstack.attach(
      DomainID(rawValue: 1), InterfaceHandle(number: 5), frontendNodes: [],
      backendNodes: [("link", "switch:inner")])
    let attached = try Command.run(
      ["attach", "-d", "1", "-v", "xvda", "--no-wait"] + stage.host + [stage.image])
    #expect(attached.status == 0)

    let both = try Command.run(["list"] + stage.host)
    expect(both, "xvda", "DOMAIN  VIF", mac, "vif1.2", "switch:inner", "Initialising")
    let text = both.output
    let (disk, interface) = (try #require(text.range(of: "xvda")), try #require(text.range(of: "vif1.2")))
    #expect(disk.lowerBound < interface.lowerBound)
    #expect(try Command.run(["list", "--kind", "vbd3"] + stage.host).output.contains("VIF") == false)
    #expect(try Command.run(["list", "--kind", "vif"] + stage.host).output.contains("DISK") == false)

    // Elements of one array; a disk's is as it has always been.
    let array = try objects(try Command.run(["list", "--json"] + stage.host))
    #expect(array.map { $0["kind"] as? String } == ["vbd3", "vif", "vif"])
    #expect(array[0]["vdev"] as? Int == 51712 && array[0]["vif"] == nil)
    #expect(array[1]["vif"] as? Int == 2 && array[1]["vdev"] == nil && array[1]["mac"] as? String == mac)
    #expect(array[1]["total"] == nil && array[1]["state"] as? String == "Initialising")
    let disks = try Command.run(["list", "--json", "--kind", "vbd3"] + stage.host)
    #expect(try JSONDecoder().decode([DeviceReport].self, from: Data(disks.output.utf8)).count == 1)
    expect(
      try Command.run(["stats", "-v", "xvda", "--vif", "0"] + stage.host), status: 64, "--vdev", "--vif")
  }

  /// A guest sends and is answered through a TAP; all commands tell the same of it.
  @Test(.timeLimit(.minutes(10)), .enabled(if: obstacle == nil, "\(obstacle ?? "")"))
  func aServedInterfaceIsToldInEveryWay() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let (host, guest) = (try NetworkNamespace(), try NetworkNamespace())
    let metrics = "\(stage.directory)/metrics"
    let notices = try NotifySocket()
    // A child is where the thread is that starts it.
    let daemon = try host.inside {
      try stage.startDaemon(
        [
          "--kind", "vbd3", "--kind", "vif", "--threads", "2", "--queues", "2", "--metrics-listen",
          "unix:\(metrics)",
        ], environment: ["NOTIFY_SOCKET": notices.address])
    }
    expect(
      try Command.run(["network-attach", "-d", "1", "--mac", "00:16:3e:00:00:05"] + stage.host), "vif1.0")
    expect(try Command.run(["stats"] + stage.host), "interface 0 of domain 1", "not connected")
    for notice in ["READY=1", "STATUS=Serving 0 disks of 0 guests on 2 threads"] {
      #expect(try notices.next() == notice)
    }
    #expect(try notices.next() == "STATUS=Serving 0 disks and 1 interface of 1 guest on 4 threads")
    let frontend = try guest.inside {
      try Command.Running(
        ["guest-network", "--own-domain", "1", "--queues", "2", "--tap", "eth0"] + stage.host)
    }
    _ = try frontend.wait(for: "connected")
    _ = try daemon.wait(for: "-> Connected")
    try host.addAddress("192.0.2.1/24", to: "vif1.0")
    try host.setUp("vif1.0")
    try guest.addAddress("192.0.2.2/24", to: "eth0")
    try guest.setUp("eth0")
    // Who has 192.0.2.1? The answer lets the datagram follow, and to that there is one, too.
    try guest.execute("bash", ["-c", "echo hello >/dev/udp/192.0.2.1/9"])

    var interface: VifNumbers?
    for _ in 0..<10_000 {
      let outcome = try Command.run(["stats", "--json", "--vif", "0", "--queues"] + stage.host)
      interface = try JSONDecoder().decode([VifNumbers].self, from: Data(outcome.output.utf8)).first
      if let total = interface?.total, total.transmit.packets >= 2, total.receive.packets >= 2 { break }
    }
    let numbers = try #require(interface)
    let total = try #require(numbers.total)
    #expect(total.transmit.packets >= 2 && total.receive.packets >= 2, "\(numbers)")
    #expect(total.transmit.bytes >= 42 && total.receive.bytes >= 42 && total.errors == 0, "\(numbers)")
    #expect(total.link.sentPackets > 0 && total.link.receivedPackets > 0 && total.kicks > 0, "\(numbers)")
    #expect((numbers.link, numbers.mac) == ("vif1.0", "00:16:3e:00:00:05"))
    #expect(numbers.queueCount == 2 && numbers.queues?.count == 2 && numbers.isStalled == false)

    expect(try Command.run(["list"] + stage.host), "no disks", "Connected", "vif1.0", "00:16:3e:00:00:05")
    let listed = try objects(try Command.run(["list", "--json"] + stage.host))
    let told = (listed[0]["total"] as? [String: Any])?["transmit"] as? [String: Any]
    #expect(told?["packets"] as? Int ?? 0 >= Int(total.transmit.packets))
    expect(
      try Command.run(["stats", "-d", "1", "--queues"] + stage.host), "interface 0", "2 queues", "queue 1",
      "transmit", "GRANT COPIES", "kicks:")
    expect(try Command.run(["stats", "-d", "1", "--vif", "3"] + stage.host), status: 1, "no such interface")
    expect(try Command.run(["stats", "-d", "2"] + stage.host), status: 1, "is served")
    let top = try Command.run(["top", "--once", "--interval", "0.2"] + stage.host)
    expect(top, "1 interfaces, 1 connected", "TX PKT/S", "vif1.0")
    expect(try Command.run(["doctor", "--kind", "vif"] + stage.host), "TAPs", "CAP_NET_ADMIN", "1 interface")

    // What came later counts no less.
    let packets = try MetricsScrape(socket: metrics).value(
      "ringback_vif_packets_total", ["domain": "1", "vif": "0", "direction": "transmit"])
    #expect(packets ?? 0 >= Double(total.transmit.packets))

    frontend.process.terminate()
    #expect(frontend.finish().status == 0)
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }
}
