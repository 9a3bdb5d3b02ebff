import Foundation
import RingKit
import Testing

@testable import ringback

/// What the doctor makes of a machine's files, good ones and bad ones.
@Suite struct DoctorMachineTests {
  private func expect(
    _ check: Check?, _ verdict: Check.Verdict, _ words: String...,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    guard let check else {
      Issue.record("there is no such check", sourceLocation: sourceLocation)
      return
    }
    #expect(check.verdict == verdict, "\(check)", sourceLocation: sourceLocation)
    #expect((check.remedy == nil) == (verdict == .ok), "\(check)", sourceLocation: sourceLocation)
    let text = "\(check.finding) -> \(check.remedy ?? "")"
    for word in words { #expect(text.contains(word), "\(text)", sourceLocation: sourceLocation) }
  }

  // MARK: Xen and its devices

  @Test func whetherXenLiesBelow() throws {
    expect(HypervisorChecks(tree: try MachineTree().tree()).xen, .problem, "no Xen", "ringback demo")
    let other = try MachineTree(["/sys/hypervisor/type": "kvm\n"])
    expect(HypervisorChecks(tree: other.tree()).xen, .problem, "but kvm")
    let directory = try MachineTree(["/sys/hypervisor/type/nonsense": ""])
    expect(HypervisorChecks(tree: directory.tree()).xen, .problem)
    let domain0 = try MachineTree.domain0()
    expect(HypervisorChecks(tree: domain0.tree()).xen, .ok, "Xen 4.20.1")
    let old = try MachineTree(["/proc/xen/capabilities": ""])
    expect(HypervisorChecks(tree: old.tree()).xen, .ok, "Xen lies below")
  }

  @Test func devicesAreThereAndOpen() throws {
    let machine = try MachineTree()
    var checks = HypervisorChecks(tree: machine.tree()).devices
    expect(checks[0], .problem, "/dev/xen/gntdev", "modprobe xen-gntdev")
    expect(checks[1], .problem, "/dev/xen/evtchn", "modprobe xen-evtchn")
    expect(checks[2], .warning, "/dev/xen/privcmd", "xl")
    try machine.addDirectory("/sys/module/xen_gntdev")
    expect(HypervisorChecks(tree: machine.tree()).devices[0], .problem, "devtmpfs")
    try machine.add("/dev/xen/gntdev", mode: 0o600)
    try machine.add("/dev/xen/evtchn", mode: 0o660)
    try machine.add("/dev/xen/privcmd", mode: 0o640)
    checks = HypervisorChecks(tree: machine.tree()).devices
    for check in checks { expect(check, .ok) }
    // The files are this test's user's; nobody else's groups count.
    checks = HypervisorChecks(tree: machine.tree(user: geteuid() + 1, groups: [getegid()])).devices
    expect(checks[0], .problem, "closed to this user", "root")
    expect(checks[1], .ok)
    expect(checks[2], .warning, "closed to this user")
  }

  @Test(arguments: [
    ("100", Check.Verdict.problem), ("junk", .warning), ("", .warning), ("1024", .warning),
    ("4095", .warning),
    ("4096", .ok), ("65536", .ok), ("99999999999999999999", .warning),
  ])
  func gntdevLimit(text: String, verdict: Check.Verdict) throws {
    let machine = try MachineTree(["/sys/module/xen_gntdev/parameters/limit": "\(text)\n"])
    expect(HypervisorChecks(tree: machine.tree()).mappingLimit, verdict)
    #expect(HypervisorChecks(tree: try MachineTree().tree()).mappingLimit == nil)
  }

  @Test(arguments: [
    (0 as UInt64, Check.Verdict.warning), (127, .warning), (128, .ok), (1024, .ok), (UInt64.max, .ok),
  ])
  func grantFrames(frames: UInt64, verdict: Check.Verdict) throws {
    expect(HypervisorChecks(tree: try MachineTree().tree()).grantLimit(frames: frames), verdict)
  }

  // MARK: The kernel's I/O, and limits

  @Test func theEngine() throws {
    let machine = try MachineTree()
    func check(_ probe: EngineChecks.Probe) -> Check {
      EngineChecks(tree: machine.tree(), threadCount: 2).engine(probe)
    }
    expect(check(.uring), .ok, "io_uring")
    expect(check(.aio(reason: nil)), .ok, "as asked for")
    expect(check(.aio(reason: "io_uring: forbidden; allow it")), .warning, "libaio", "-> allow it")
    expect(check(.failed("libaio: none")), .problem, "libaio: none", "io_uring_disabled=0")
    try machine.add("/proc/sys/kernel/io_uring_disabled", "1\n")
    expect(check(.uring), .ok, "is 1")
    // A real one: this machine has one of them.
    #expect(EngineChecks.Probe(.automatic, entries: 8) != .failed(""))
    #expect(EngineChecks.Probe(.aio, entries: 8) == .aio(reason: nil))
  }

  @Test(arguments: [
    ("65536", "0", Check.Verdict.ok), ("4098", "0", .ok), ("4097", "0", .warning),
    ("65536", "65406", .warning),
    ("65536", "65407", .problem), ("65536", "70000", .problem), ("0", "0", .problem), ("65536", "junk", .ok),
  ])
  func roomForLibaio(limit: String, used: String, verdict: Check.Verdict) throws {
    let machine = try MachineTree([
      "/proc/sys/fs/aio-max-nr": "\(limit)\n", "/proc/sys/fs/aio-nr": "\(used)\n",
    ])
    let checks = EngineChecks(tree: machine.tree(), threadCount: 2)
    expect(checks.requestRoom(.aio(reason: nil)), verdict, "2 data threads want 4098")
    #expect(checks.requestRoom(.uring) == nil)
  }

  @Test(arguments: [
    ("1048576", Check.Verdict.ok, "1048576"), ("4096", .ok, "4096"), ("4095", .warning, "511 disks"),
    ("0", .warning, "0 disks"), ("unlimited", .ok, "any number"), ("junk", .warning, "cannot be read"),
  ])
  func openFiles(limit: String, verdict: Check.Verdict, word: String) throws {
    let machine = try MachineTree([
      "/proc/self/limits": MachineTree.limits(files: limit, memory: "0"),
      "/proc/7/limits": MachineTree.limits(files: "5000", memory: "0"),
    ])
    let checks = EngineChecks(tree: machine.tree(), threadCount: 2)
    expect(checks.openFiles(daemon: nil), verdict, word)
    expect(checks.openFiles(daemon: 7), .ok, "5000", "pid 7")
    expect(checks.openFiles(daemon: 8), .warning, "cannot be read")
  }

  @Test(arguments: [
    ("67108864", "0", Check.Verdict.ok), ("67108863", "0", .warning), ("unlimited", "0", .ok),
    ("8192", "000001ffffffffff", .ok), ("8192", "0000000000004000", .ok),
    ("8192", "ffffffffffffbfff", .warning),
    ("8192", "junk", .warning), ("junk", "0", .warning),
  ])
  func lockedMemory(limit: String, capabilities: String, verdict: Check.Verdict) throws {
    let machine = try MachineTree([
      "/proc/self/limits": MachineTree.limits(files: "1", memory: limit),
      "/proc/self/status": "Name:\tringback\nCapEff:\t\(capabilities)\n",
    ])
    let checks = EngineChecks(tree: machine.tree(), threadCount: 2)
    expect(checks.lockedMemory(.uring, daemon: nil), verdict)
    #expect(checks.lockedMemory(.aio(reason: nil), daemon: nil) == nil)
  }

  // MARK: Rivals

  private func rivals(_ machine: MachineTree, kinds: [String] = ["vbd3"], words: [String] = []) -> RivalChecks
  {
    RivalChecks(tree: machine.tree(), kinds: kinds, programs: machine.tree().programs, machineWords: words)
  }

  @Test func otherBackendsAreNamed() throws {
    let machine = try MachineTree([
      "/proc/2/cmdline": "", "/proc/net/cmdline": "tapback\0", "/proc/3/comm": "x",
    ])
    #expect(rivals(machine).all.map(\.verdict) == [.ok])
    try machine.addProgram(100, "/usr/sbin/tapback", "-d", "-x", "5")
    try machine.addProgram(101, "/usr/bin/vi", "tapback")
    expect(rivals(machine).tapback, .problem, "pid 100", "vbd3", "systemctl disable --now tapback")
    expect(rivals(machine, kinds: ["vbd"]).tapback, .ok)
    try machine.addProgram(100, "tapback", "-n", "mine")
    expect(rivals(machine).tapback, .ok)
    expect(rivals(machine, kinds: ["vbd3", "mine"]).tapback, .problem, "serves mine")
    try machine.addProgram(102, "/usr/libexec/tapdisk")
    try machine.addProgram(103, "tapdisk", "-D")
    expect(rivals(machine).tapdisk, .warning, "pid 102, 103")
    #expect(rivals(machine).all.count == 3)
  }

  @Test func theKernelsBackendIsARivalForItsKindOnly() throws {
    let machine = try MachineTree()
    expect(rivals(machine, kinds: ["vbd"]).kernel, .ok, "not loaded")
    try machine.addDirectory("/sys/bus/xen-backend/drivers/vbd")
    expect(rivals(machine).kernel, .ok, "vbd alone")
    expect(rivals(machine, kinds: ["vbd3", "vbd"]).kernel, .problem, "rmmod xen-blkback")
  }

  @Test func twoDaemonsAreTooMany() throws {
    let machine = try MachineTree()
    try machine.addProgram(10, "/usr/bin/ringback", "serve")
    try machine.addProgram(11, "ringback", "serve", "--kind=vbd4")
    try machine.addProgram(12, "ringback", "serve", "--hypervisor", "loopback", "--loopback-directory", "/a")
    try machine.addProgram(13, "ringback", "serve", "--hypervisor", "loopback", "--loopback-directory", "/b")
    try machine.addProgram(14, "ringback", "stats", "serve")
    #expect(rivals(machine).ownDaemons.map(\.process) == [10])
    #expect(rivals(machine).daemons == nil)
    #expect(rivals(machine, words: ["serve", "/b"]).ownDaemons.map(\.process) == [13])
    expect(rivals(machine, kinds: ["vbd3", "vbd4"]).daemons, .problem, "2 daemons", "pid 10, 11")
  }

  // MARK: What xl needs

  @Test func tapControlIsOurs() throws {
    let machine = try MachineTree()
    var checks = ToolstackChecks(tree: machine.tree(), searchPath: "/usr/sbin::/usr/bin", ownProgram: "/own")
    expect(checks.tapControl, .warning, "no tap-ctl", "make install")
    try machine.add("/usr/bin/tap-ctl", mode: 0o755)
    expect(checks.tapControl, .warning, "/usr/bin/tap-ctl is not Ringback's")
    try machine.add("/usr/sbin/tap-ctl", mode: 0o644)
    try machine.addDirectory("/sbin/tap-ctl")
    expect(checks.tapControl, .warning, "/usr/bin/tap-ctl is not Ringback's")
    try FileManager.default.removeItem(atPath: machine.root + "/usr/sbin/tap-ctl")
    try machine.add("/opt/ringback", mode: 0o755)
    try machine.addLink("/usr/sbin/tap-ctl", to: "../../opt/ringback")
    expect(checks.tapControl, .ok, "/usr/sbin/tap-ctl")
    // A copy by another name, known as the same file.
    checks.searchPath = "/bin"
    try machine.add("/own", mode: 0o755)
    try machine.addDirectory("/bin")
    try FileManager.default.linkItem(atPath: machine.root + "/own", toPath: machine.root + "/bin/tap-ctl")
    expect(checks.tapControl, .ok, "/bin/tap-ctl")
    checks.searchPath = ""
    expect(checks.tapControl, .warning)
  }

  @Test func scriptsAndHelpers() throws {
    let machine = try MachineTree()
    let checks = ToolstackChecks(tree: machine.tree(), searchPath: "")
    expect(checks.hotplugScript, .warning, "no /etc/xen/scripts/block-tap", "xen-utils-common")
    try machine.add("/etc/xen/scripts/block-tap")
    expect(checks.hotplugScript, .warning, "chmod 755")
    try machine.add("/etc/xen/scripts/block-ringback", mode: 0o755)
    expect(checks.hotplugScript, .warning, "script=block-ringback")
    try machine.add("/etc/xen/scripts/block-tap", mode: 0o755)
    expect(checks.hotplugScript, .ok)
    let programs = [(path: "/usr/bin/a", package: "pack-a"), (path: "/usr/bin/b", package: "pack-b")]
    expect(checks.helpers(programs), .warning, "/usr/bin/a and /usr/bin/b are", "pack-a", "pack-b")
    try machine.add("/usr/bin/a", mode: 0o755)
    expect(checks.helpers(programs), .warning, "/usr/bin/b is", "install pack-b")
    try machine.add("/usr/bin/b", mode: 0o755)
    expect(checks.helpers(programs), .ok)
  }

  @Test func directoriesCanBeWritten() throws {
    let machine = try MachineTree(["/run/file": ""])
    try machine.addDirectory("/run/closed", mode: 0o755)
    func check(_ path: String, user: UInt32 = 0) -> Check {
      ToolstackChecks(tree: machine.tree(user: user), searchPath: "")
        .directory("directory", path, use: "for all", ifBad: .problem)
    }
    expect(check("/run/closed"), .ok, "can be written")
    expect(check("/run/new/deep"), .ok, "will be made")
    expect(check("/elsewhere/deep"), .ok, "will be made")
    expect(check("/run/file"), .problem, "/run/file is no directory")
    expect(check("/run/file/deep"), .problem, "/run/file is no directory")
    let stranger = geteuid() + 1
    expect(check("/run/closed", user: stranger), .problem, "cannot be written", "root")
    expect(check("/run/closed/new", user: stranger), .problem, "/run/closed")
  }
}
