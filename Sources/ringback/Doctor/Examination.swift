import Blkback
import Foundation
import Loopback
import RingKit

/// All checks, in the order in which they are told.
struct Examination {
  var tree = SystemTree()
  /// The machine below; nil when there is none.
  var machine: HypervisorKind?
  /// The daemon's.
  var settings = DaemonSettings.defaults
  var controlSocketPath: String
  var tapDirectory: String
  var searchPath: String
  /// Words that tell daemons of one loopback machine from others.
  var loopbackDirectory: String
  /// Opens the machine below.
  var open: @Sendable () throws -> any Hypervisor

  /// The longest wait for the machine and xenstored, and for the daemon.
  var patienceSeconds = 5

  private var kinds: [String] { settings.kinds ?? [defaultKind] }

  func checks() throws -> [Check] {
    let xen = HypervisorChecks(
      tree: tree, persistentPageLimit: settings.persistentPages ?? VbdOffer().persistentPageLimit)
    var checks: [Check] = []
    if machine != .loopback {
      checks.append(xen.xen)
      // Without Xen, what is missing besides is no news.
      if xen.isXen {
        checks += xen.devices
        checks += [xen.mappingLimit, try grantFrames().map(xen.grantLimit)].compactMap { $0 }
      }
    }
    let programs = tree.programs
    let rivals = RivalChecks(
      tree: tree, kinds: kinds, programs: programs,
      machineWords: machine == .loopback ? ["serve", loopbackDirectory] : [])
    let path = controlSocketPath
    let daemon = DaemonChecks(
      probe: try PatientCall.result(within: patienceSeconds) { DaemonChecks.Probe(path: path) }
        ?? .unwell("the daemon at \(path) does not answer within \(patienceSeconds) s"),
      path: path, processes: rivals.ownDaemons.map(\.process))
    if machine == .loopback || xen.isXen {
      // What is not there was told; opening it tells no more.
      let hasDevices = !checks.contains { $0.verdict == .problem }
      checks += try below(hasDevices: hasDevices, hasDaemon: daemon.hasDaemon, programs: programs)
      checks.append(daemon.daemon)
    }
    let process = daemon.hasDaemon && rivals.ownDaemons.count == 1 ? rivals.ownDaemons[0] : nil
    checks += engines(daemon: process)
    if kinds.contains(DaemonVifs.kind) {
      let interfaces = InterfaceChecks(tree: tree, daemon: process?.process)
      checks += [interfaces.tun, interfaces.capability]
      if machine != .loopback, xen.isXen { checks.append(interfaces.kernel) }
    }
    if machine == .loopback {
      checks += [rivals.daemons].compactMap { $0 }
    } else if xen.isXen {
      checks += rivals.all
    }
    return checks + toolstack(onXen: machine != .loopback && xen.isXen)
  }

  /// The machine's handles, and what xenstore tells.
  private func below(
    hasDevices: Bool, hasDaemon: Bool, programs: [SystemTree.RunningProgram]
  ) throws -> [Check] {
    let (open, kinds) = (open, kinds)
    let answer = try PatientCall.result(within: patienceSeconds) { Self.ask(open, hasDevices, kinds) }
    let (failures, probe) = answer ?? ([], .silent(seconds: patienceSeconds))
    let remedy = "the kernel's log (dmesg) tells more"
    let handles: [Check] =
      failures.isEmpty && hasDevices && answer != nil
      ? [.ok("machine", "guests' pages and event channels can be used")]
      : failures.map { .failure("machine", .problem, $0, orMend: remedy) }
    return handles
      + (probe.map { StoreChecks(probe: $0, hasDaemon: hasDaemon, programs: programs).all } ?? [])
  }

  /// What cannot be opened, and what xenstore says unless there is no machine to ask for it.
  private static func ask(
    _ open: () throws -> any Hypervisor, _ hasDevices: Bool, _ kinds: [String]
  ) -> (failures: [String], probe: StoreChecks.Probe?) {
    let host: any Hypervisor
    do { host = try open() } catch { return (["\(error)"], nil) }
    var failures: [String] = []
    if hasDevices {
      do { _ = try host.openGrantTable() } catch { failures.append("\(error)") }
      do { _ = try host.openEventChannels() } catch { failures.append("\(error)") }
    }
    do {
      return (failures, .answered(try StoreLook(try host.openStore(), kinds: kinds)))
    } catch {
      return (failures, .failed("\(error)"))
    }
  }

  private func engines(daemon: SystemTree.RunningProgram?) -> [Check] {
    let checks = EngineChecks(
      tree: tree, threadCount: settings.threads ?? ProcessInfo.processInfo.activeProcessorCount,
      threads: settings.threadConfiguration)
    let probe = EngineChecks.Probe(checks.threads.engine, entries: checks.threads.ringEntries)
    return [
      checks.engine(probe), checks.requestRoom(probe), checks.openFiles(daemon: daemon?.process),
      checks.lockedMemory(probe, daemon: daemon?.process),
    ].compactMap { $0 }
  }

  private func toolstack(onXen: Bool) -> [Check] {
    let checks = ToolstackChecks(tree: tree, searchPath: searchPath)
    let control = URL(filePath: controlSocketPath).standardizedFileURL.deletingLastPathComponent().path
    let directories = [
      checks.directory(
        "run directory", control, use: "for the control socket", ifBad: .problem),
      checks.directory("tap directory", tapDirectory, use: "for the sockets of taps", ifBad: .warning),
    ]
    let helpers = checks.helpers(StoreTable.helperPrograms)
    return onXen ? [checks.tapControl, checks.hotplugScript, helpers] + directories : [helpers] + directories
  }

  /// What Xen's own file system says of this domain's grant mappings; nil where it does not.
  private func grantFrames() throws -> UInt64? {
    guard tree.root.isEmpty,
      let program = ["/usr/sbin/xenhypfs", "/usr/bin/xenhypfs"].first(where: tree.isProgram)
    else { return nil }
    return try PatientCall.result(within: 2) {
      // What it prints has to come by way of standard error.
      let words = ["-c", "exec \(program) cat /params/gnttab_max_maptrack_frames 2>/dev/null >&2"]
      guard let process = try? ChildProcess(path: "/bin/sh", arguments: words) else { return nil }
      var poll = DescriptorPoll()
      poll.set([(process.errorDescriptor, false)])
      var said: [UInt8] = []
      while (try? poll.wait(timeoutMilliseconds: 2000))?.isEmpty == false {
        guard let bytes = process.readErrors() else { continue }
        if bytes.isEmpty { break }
        said += bytes
      }
      _ = process.killAndReap()
      return UInt64(String(decoding: said, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
    } ?? nil
  }
}
