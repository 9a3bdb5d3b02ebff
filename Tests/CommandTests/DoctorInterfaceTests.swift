import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// What the doctor says of what interfaces need.
@Suite struct DoctorInterfaceTests {
  private func expect(
    _ check: Check, _ verdict: Check.Verdict, _ words: String...,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(check.verdict == verdict, "\(check)", sourceLocation: sourceLocation)
    #expect((check.remedy == nil) == (verdict == .ok), "\(check)", sourceLocation: sourceLocation)
    let text = "\(check.finding) -> \(check.remedy ?? "")"
    for word in words { #expect(text.contains(word), "\(text)", sourceLocation: sourceLocation) }
  }

  @Test func theDeviceForTapsIsThereAndOpen() throws {
    let machine = try MachineTree()
    expect(InterfaceChecks(tree: machine.tree()).tun, .problem, "/dev/net/tun", "modprobe tun")
    try machine.addDirectory("/sys/module/tun")
    expect(InterfaceChecks(tree: machine.tree()).tun, .problem, "devtmpfs")
    try machine.add("/dev/net/tun", mode: 0o600)
    expect(InterfaceChecks(tree: machine.tree()).tun, .ok)
    expect(InterfaceChecks(tree: machine.tree(user: geteuid() + 1)).tun, .problem, "closed to this user")
  }

  @Test(arguments: [
    ("0000000000001000", Check.Verdict.ok), ("000001ffffffffff", .ok), ("ffffffffffffefff", .problem),
    ("0", .problem), ("junk", .warning),
  ])
  func theCapability(set: String, verdict: Check.Verdict) throws {
    let status = "Name:\tringback\nCapPrm:\t0\nCapEff:\t\(set)\n"
    let machine = try MachineTree(["/proc/self/status": status, "/proc/7/status": status])
    expect(InterfaceChecks(tree: machine.tree()).capability, verdict, "CAP_NET_ADMIN", "this user")
    expect(InterfaceChecks(tree: machine.tree(), daemon: 7).capability, verdict, "pid 7")
    expect(InterfaceChecks(tree: machine.tree(), daemon: 8).capability, .warning, "cannot be read")
  }

  @Test(arguments: ["/sys/module/xen_netback", "/sys/bus/xen-backend/drivers/vif"])
  func theKernelsBackendIsARival(path: String) throws {
    let machine = try MachineTree()
    expect(InterfaceChecks(tree: machine.tree()).kernel, .ok, "not loaded")
    try machine.addDirectory(path)
    expect(InterfaceChecks(tree: machine.tree()).kernel, .problem, "rmmod xen-netback", "modprobe.d")
  }

  /// Only where interfaces are served is anything said of them.
  @Test func onlyWhereTheyAreServed() throws {
    let machine = try MachineTree.domain0()
    try machine.addDirectory("/sys/module/xen_netback")
    func names(_ kinds: [String]) throws -> [String: Check.Verdict] {
      var settings = DaemonSettings.defaults
      settings.kinds = kinds
      let examination = Examination(
        tree: machine.tree(), machine: .xen, settings: settings, controlSocketPath: "\(machine.root)/none",
        tapDirectory: "/run/taps", searchPath: "", loopbackDirectory: "",
        open: { throw CommandError("no machine") })
      return Dictionary(try examination.checks().map { ($0.name, $0.verdict) }) { first, _ in first }
    }
    let disks = try names(["vbd3"])
    for name in ["tun", "net admin", "xen-netback"] { #expect(disks[name] == nil) }
    let both = try names(["vbd3", "vif"])
    #expect(both["tun"] == .problem && both["xen-netback"] == .problem && both["net admin"] == .warning)
  }

  @Test func stuckInterfacesAreNamed() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let hypervisor = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 0))
    try Toolstack<InterfaceHandle>(host: hypervisor, kind: DaemonVifs.kind).attach(
      DomainID(rawValue: 1), InterfaceHandle(number: 2), frontendNodes: [], backendNodes: [])
    let store = try hypervisor.openStore()
    func checks() throws -> [Check] {
      let look = try StoreLook(store, kinds: ["vbd3", "vif"], settleMilliseconds: 1)
      return StoreChecks(probe: .answered(look), hasDaemon: true, programs: []).all
    }
    expect(
      try checks().last!, .warning, "vif/1/2 (interface 2 of domain 1)", "nobody has taken it", "kind vif")
    try store.write("/local/domain/0/backend/vif/1/2/state", "2")
    expect(try checks().last!, .ok, "1 interface in xenstore, of which none is stuck")
    // netfront is Connected as soon as it has written its keys.
    try store.write("/local/domain/1/device/vif/2/state", "4")
    expect(try checks().last!, .warning, "in state InitWait though its guest is ready", "network-detach")
    #expect(try checks().contains { $0.finding == "no disks in xenstore" })
  }
}
