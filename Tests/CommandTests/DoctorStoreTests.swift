import Blkback
import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// What the doctor makes of xenstore and of the daemon, on a loopback machine and in silence.
@Suite struct DoctorStoreTests {
  /// A loopback machine in this process.
  private final class Stage {
    let directory = FileManager.default.temporaryDirectory.path + "/rb-\(UUID().uuidString.prefix(8))"
    let host: LoopbackHost
    let store: StoreClient

    init() throws {
      host = try LoopbackHost(directory: directory)
      for number in 1...3 as ClosedRange<UInt16> { try host.addDomain(DomainID(rawValue: number)) }
      store = try host.hypervisor(for: DomainID(rawValue: 0)).openStore()
    }

    deinit {
      host.stop()
      try? FileManager.default.removeItem(atPath: directory)
    }

    /// A disk of domain 1 as `ringback attach` leaves it.
    func attach(_ name: String = "xvda", domain: UInt16 = 1) throws {
      let hypervisor = try host.hypervisor(for: DomainID(rawValue: 0))
      let device = try #require(VirtualDevice(name))
      try Toolstack<VirtualDevice>(host: hypervisor, kind: defaultKind).attach(
        DomainID(rawValue: domain), device, parameters: "raw:/srv/disk", nodes: [("mode", "w")])
    }

    func checks(hasDaemon: Bool = true) throws -> [Check] {
      let look = try StoreLook(store, kinds: [defaultKind], settleMilliseconds: 1)
      return StoreChecks(probe: .answered(look), hasDaemon: hasDaemon, programs: []).all
    }
  }

  static let backend = "/local/domain/0/backend/vbd3/1/51712"
  static let frontend = "/local/domain/1/device/vbd/51712"
  static let error = "/local/domain/0/error/backend/vbd3/1/51712/error"

  /// Nodes that differ from those of a fresh disk, and what is said of it; nothing of disks that are well.
  static let disks: [(nodes: [(path: String, value: String?)], hasDaemon: Bool, words: [String])] = [
    ([], false, ["nobody has taken it", "ringback serve"]),
    ([], true, ["nobody has taken it", "the daemon's log", "--kind"]),
    ([("\(backend)/state", "2")], true, []),
    ([("\(backend)/state", "4"), ("\(frontend)/state", "4")], true, []),
    ([("\(backend)/state", "6"), ("\(frontend)/state", "6")], true, []),
    ([("\(backend)/state", "2"), ("\(frontend)/state", "3")], true, ["InitWait", "guest is ready"]),
    (
      [
        ("\(backend)/state", "2"), ("\(frontend)/state", "3"), ("\(backend)/hotplug-status", nil),
        ("\(backend)/script", "/etc/xen/scripts/block-tap"),
      ], true, ["InitWait", "block-tap has said nothing", "xen-hotplug.log", "tap-ctl"]
    ),
    (
      [
        ("\(backend)/state", "2"), ("\(frontend)/state", "3"), ("\(backend)/hotplug-status", "error"),
        ("\(backend)/hotplug-error", "no\u{1B}[31m image"),
      ], true, ["ended with error: no\\u{1B}[31m image", "xl block-detach"]
    ),
    (
      [("\(backend)/state", "6"), (error, "no image at /srv/disk")], true,
      ["no image at /srv/disk", "mend that"]
    ),
    (
      [("\(backend)/state", "4"), ("\(frontend)/state", "4"), (error, "error 5: data is lost")], true,
      ["data is lost", "as said there"]
    ),
    ([("\(backend)/state", "nonsense")], true, ["xenbus state"]),
    ([("\(frontend)/state", "99")], true, ["xenbus state"]),
    ([("\(backend)/frontend", nil)], true, ["frontend", "missing"]),
    ([("\(backend)/frontend", "/local/domain/2/device/vbd/51712")], true, ["a path below /local/domain/1/"]),
    ([("\(backend)/frontend-id", "2")], true, ["frontend-id"]),
    ([("/local/domain/1", nil)], true, ["domain 1 is gone", "xenstore-rm \(backend)"]),
  ]

  @Test(arguments: disks.indices)
  func aDisk(index: Int) throws {
    let disk = Self.disks[index]
    let stage = try Stage()
    try stage.attach()
    for (path, value) in disk.nodes {
      if let value { try stage.store.write(path, value) } else { try stage.store.remove(path) }
    }
    let checks = try stage.checks(hasDaemon: disk.hasDaemon)
    #expect(checks[0].verdict == .ok && checks[0].finding.contains(stage.directory))
    #expect(checks[1].verdict == .ok && checks[1].finding.contains("domain 0"))
    let said = checks[2]
    #expect(said.verdict == (disk.words.isEmpty ? .ok : .warning), "\(said)")
    let text = "\(said.finding) -> \(said.remedy ?? "")"
    if !disk.words.isEmpty { #expect(text.contains("vbd3/1/51712 (xvda of domain 1)"), "\(text)") }
    for word in disk.words { #expect(text.contains(word), "\(text)") }
    #expect(Diagnosis(checks).canServe)
  }

  @Test func manyDisksAreOneLineButForTheBad() throws {
    let stage = try Stage()
    #expect(try stage.checks().last?.finding == "no disks in xenstore")
    try stage.attach()
    try stage.attach("xvdb")
    try stage.attach(domain: 2)
    try stage.store.write("/local/domain/0/backend/vbd3/1/51712/state", "4")
    try stage.store.write("/local/domain/0/backend/vbd3/1/51728/state", "4")
    // Names that are no devices are none of ours.
    try stage.store.write("/local/domain/0/backend/vbd3/junk/0/state", "1")
    let checks = try stage.checks()
    #expect(checks.count == 4)
    #expect(checks[2].finding.contains("vbd3/2/51712"))
    #expect(checks[3].finding == "2 other disks in xenstore, of which none is stuck")
  }

  /// A disk that is only on its way when it is looked at first.
  @Test func aDiskOnItsWayIsNotStuck() throws {
    let stage = try Stage()
    try stage.attach()
    let look = DeviceLook(
      DeviceAddress(kind: "vbd3", domain: DomainID(rawValue: 1), device: 51712), directory: Self.backend)
    for (own, frontend, isStuck) in [
      (XenbusState?.none, XenbusState?.none, false), (.initialising, .initialising, true),
      (.initialising, nil, true),
      (.initWait, .initialising, false), (.initWait, .initialised, true), (.initialised, .initialised, false),
      (.connected, .connected, false), (.closed, .initialising, false),
    ] {
      var look = look
      (look.own, look.frontend) = (own, frontend)
      #expect(look.isStuck == isStuck, "\(String(describing: own)), \(String(describing: frontend))")
    }
  }

  // MARK: The domain

  @Test func onlyDomain0AndDriverDomainsServe() throws {
    let stage = try Stage()
    let hypervisor = try stage.host.hypervisor(for: DomainID(rawValue: 3))
    // It dies with its last connection.
    defer { withExtendedLifetime(hypervisor) {} }
    let store = try hypervisor.openStore()
    func domain(_ programs: [SystemTree.RunningProgram]) throws -> Check {
      let look = try StoreLook(store, kinds: [defaultKind])
      return StoreChecks(probe: .answered(look), hasDaemon: false, programs: programs).all[1]
    }
    let devd = SystemTree.RunningProgram(process: 1, words: ["/usr/sbin/xl", "devd"])
    var check = try domain([devd])
    #expect(check.verdict == .warning && check.remedy?.contains("driver_domain=1") == true, "\(check)")
    try stage.store.makeDirectory("/local/domain/3/libxl")
    check = try domain([SystemTree.RunningProgram(process: 1, words: ["xl", "list"])])
    #expect(check.verdict == .warning && check.remedy?.contains("xl devd") == true, "\(check)")
    check = try domain([devd])
    #expect(check.verdict == .ok && check.finding.contains("domain 3, a driver domain"), "\(check)")
  }

  /// It may read the frontend's nodes of its guest, and nothing else of it.
  @Test func aDriverDomainSeesItsDisks() throws {
    let stage = try Stage()
    let hypervisor = try stage.host.hypervisor(for: DomainID(rawValue: 3))
    defer { withExtendedLifetime(hypervisor) {} }
    let backend = "/local/domain/3/backend/vbd3/1/51712"
    let (driver, guest) = (DomainID(rawValue: 3), DomainID(rawValue: 1))
    let none = StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false)
    for (path, owner, reader) in [
      ("/local/domain/1", DomainID(rawValue: 0), guest), (backend, driver, guest),
      (Self.frontend, guest, driver),
    ] {
      try stage.store.makeDirectory(path)
      try stage.store.setPermissions(
        [
          StorePermission(domain: owner, canRead: false, canWrite: false),
          StorePermission(domain: reader, canRead: true, canWrite: false),
        ], of: path)
    }
    try stage.store.setPermissions([none], of: "/local/domain")
    for (name, value) in [("frontend", Self.frontend), ("frontend-id", "1"), ("state", "4")] {
      try stage.store.write("\(backend)/\(name)", value)
    }
    try stage.store.write("\(Self.frontend)/state", "4")
    func disks() throws -> [DeviceLook] {
      try StoreLook(hypervisor.openStore(), kinds: [defaultKind], settleMilliseconds: 1).devices
    }
    #expect(throws: StoreError.self) { try hypervisor.openStore().exists("/local/domain/1") }
    var disk = try #require(try disks().first)
    #expect(disk.own == .connected && disk.frontend == .connected && disk.hasGuest && disk.trouble == nil)
    try stage.store.remove("/local/domain/1")
    disk = try #require(try disks().first)
    #expect(!disk.hasGuest && disk.trouble == nil, "\(disk)")
  }

  @Test func whatXenstoredDoesNotSay() {
    for (probe, word) in [
      (StoreChecks.Probe.failed("cannot connect"), "start xenstored"), (.silent(seconds: 5), "within 5 s"),
    ] {
      let checks = StoreChecks(probe: probe, hasDaemon: false, programs: []).all
      #expect(checks.count == 1 && checks[0].verdict == .problem)
      #expect("\(checks[0])".contains(word), "\(checks)")
    }
  }

  // MARK: The daemon

  private func daemon(_ path: String, _ processes: [Int32] = []) -> Check {
    DaemonChecks(
      probe: DaemonChecks.Probe(path: path, patienceMilliseconds: 200), path: path, processes: processes
    ).daemon
  }

  @Test func aDaemonThatIsNotThere() throws {
    let machine = try MachineTree(["/control": "no socket"])
    for path in ["/nothing", "/control"] {
      let check = daemon(machine.root + path)
      #expect(check.verdict == .warning && check.remedy?.contains("ringback serve") == true, "\(check)")
    }
    let elsewhere = daemon(machine.root + "/nothing", [17])
    #expect(elsewhere.finding.contains("pid 17") && elsewhere.remedy?.contains("--control-socket") == true)
    let closed = DaemonChecks(probe: .absent(errno: EACCES), path: "/x", processes: [17]).daemon
    #expect(closed.verdict == .warning && closed.finding.contains("closed to this user"))
  }

  @Test(arguments: ["", "not JSON\n", "{\"error\": \"the daemon stops\"}", "[{\"domain\": \"one\"}]"])
  func aDaemonThatAnswersNonsense(answer: String) throws {
    let machine = try MachineTree()
    let path = machine.root + "/control"
    let isListening = DispatchSemaphore(value: 0)
    let thread = try OSThread(name: "nonsense") {
      guard let listener = try? LocalSocket.listen(path: path) else { return }
      isListening.signal()
      func wait(_ descriptor: Int32) {
        var poll = DescriptorPoll()
        poll.set([(descriptor, false)])
        _ = try? poll.wait(timeoutMilliseconds: 10_000)
      }
      listener.setNonBlocking()
      wait(listener.descriptor)
      // The first connection only asks whether somebody is there.
      _ = listener.accept()
      wait(listener.descriptor)
      guard let asker = listener.accept() else { return }
      wait(asker.descriptor)
      _ = try? asker.read()
      _ = try? asker.write(Array(answer.utf8)[...])
    }
    #expect(isListening.wait(timeout: .now() + 10) == .success)
    let check = daemon(path)
    thread.join()
    #expect(
      check.verdict == .problem && check.finding.contains(path) == !answer.contains("stops"), "\(check)")
  }

  @Test func aDaemonThatIsSilent() throws {
    let machine = try MachineTree()
    let path = machine.root + "/control"
    let listener = try LocalSocket.listen(path: path)
    let check = daemon(path)
    #expect(check.verdict == .problem && check.finding.contains("does not answer"), "\(check)")
    withExtendedLifetime(listener) {}
  }

  // MARK: All together

  /// Xen whose xenstored takes connections and never answers; nothing else opens.
  private struct SilentXen: Hypervisor {
    let socket: String
    var name: String { "silent" }
    func openGrantTable() throws(HostError) -> any GrantTable { throw HostError("gntdev: broken; mend it") }
    func openGrantSharing() throws(HostError) -> any GrantSharing { throw HostError("no") }
    func openEventChannels() throws(HostError) -> any EventChannels { throw HostError("evtchn: broken") }
    func openStore() throws(HostError) -> StoreClient {
      do { return try StoreClient(socketPath: socket) } catch { throw HostError("\(error)") }
    }
  }

  private func examine(_ machine: MachineTree, _ host: any Hypervisor) throws -> Diagnosis {
    let examination = Examination(
      tree: machine.tree(), controlSocketPath: machine.root + "/run/control",
      tapDirectory: "/run/blktap-control", searchPath: "/usr/sbin", loopbackDirectory: "/none",
      open: { host }, patienceSeconds: 1)
    return Diagnosis(try examination.checks())
  }

  @Test func aSilentXenstoredDoesNotKeepUsWaiting() throws {
    let machine = try MachineTree.domain0()
    let path = machine.root + "/xenstored"
    let listener = try LocalSocket.listen(path: path)
    let diagnosis = try examine(machine, SilentXen(socket: path))
    let problems = diagnosis.checks.filter { $0.verdict == .problem }
    #expect(problems.map(\.name) == ["xenstored"], "\(problems)")
    #expect(problems.first?.finding.contains("within 1 s") == true)
    #expect(!diagnosis.canServe)
    withExtendedLifetime(listener) {}
  }

  @Test func brokenDevicesAreProblemsWithXenstoredOrWithout() throws {
    let machine = try MachineTree.domain0()
    var diagnosis = try examine(machine, SilentXen(socket: machine.root + "/nothing"))
    #expect(
      diagnosis.checks.filter { $0.verdict == .problem }.map(\.name) == ["machine", "machine", "xenstored"])
    #expect(diagnosis.checks.contains { $0.finding == "gntdev: broken" && $0.remedy == "mend it" })
    // What is not there is told once.
    try FileManager.default.removeItem(atPath: machine.root + "/dev/xen/gntdev")
    diagnosis = try examine(machine, SilentXen(socket: machine.root + "/nothing"))
    #expect(diagnosis.checks.filter { $0.verdict == .problem }.map(\.name) == ["gntdev", "xenstored"])
  }

  /// Domain 0 in order, with Loopback for its devices and its xenstore.
  @Test func aHealthyDomain0() throws {
    let machine = try MachineTree.domain0()
    let stage = try Stage()
    let diagnosis = try examine(machine, try stage.host.hypervisor(for: DomainID(rawValue: 0)))
    let bad = diagnosis.checks.filter { $0.verdict != .ok }
    #expect(diagnosis.canServe && bad.map(\.name) == ["daemon"], "\(bad)")
    #expect(
      Set(diagnosis.checks.map(\.name)).isSuperset(of: [
        "xen", "gntdev", "evtchn", "privcmd", "gntdev limit", "machine", "xenstored", "domain", "disks",
        "engine",
        "open files", "xen-blkback", "tap-ctl", "block-tap", "run directory", "tap directory",
      ]))
  }

  @Test func withoutXenTheRestIsLookedAtStill() throws {
    let machine = try MachineTree()
    let diagnosis = try examine(machine, SilentXen(socket: "/nonexistent"))
    #expect(diagnosis.checks.first?.name == "xen" && !diagnosis.canServe)
    #expect(diagnosis.checks.contains { $0.name == "engine" })
    #expect(!diagnosis.checks.contains { ["xenstored", "gntdev", "tap-ctl", "daemon"].contains($0.name) })
  }
}
