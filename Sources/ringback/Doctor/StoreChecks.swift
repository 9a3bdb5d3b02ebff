import Blkback
import RingKit

/// What xenstore's answers mean.
struct StoreChecks {
  /// How a question to xenstore ended.
  enum Probe: Sendable, Equatable {
    case answered(StoreLook)
    case failed(String)
    case silent(seconds: Int)
  }

  let probe: Probe
  /// Whether a daemon answers here.
  var hasDaemon: Bool
  /// What runs.
  var programs: [SystemTree.RunningProgram]

  var all: [Check] {
    switch probe {
    case .answered(let look):
      [.ok("xenstored", "xenstored answers at \(look.socketPath)"), domain(look)] + devices(look.devices)
    case .failed(let reason):
      [
        .failure(
          "xenstored", .problem, reason,
          orMend: "domain 0: start xenstored (Debian: systemctl start xen, or /etc/init.d/xen start)."
            + " A driver domain: modprobe xenfs, for /dev/xen/xenbus")
      ]
    case .silent(let seconds):
      [
        .problem(
          "xenstored", "xenstored does not answer within \(seconds) s",
          mend: "look whether it runs and works (xenstore-ls); when it was restarted, the host has to be, too"
        )
      ]
    }
  }

  /// Who may be a backend: domain 0, and what the toolstack calls a driver domain.
  private func domain(_ look: StoreLook) -> Check {
    guard look.ownDomain.rawValue != 0 else {
      return .ok("domain", "this is domain 0, which may serve every guest")
    }
    let name = "this is domain \(look.ownDomain)"
    guard look.isDriverDomain else {
      return .warning(
        "domain", "\(name), which is no driver domain: xl cannot have it serve disks",
        mend: "make it with driver_domain=1 in its configuration, and attach disks with backend=ITS-NAME")
    }
    guard programs.contains(where: { $0.name == "xl" && $0.words.dropFirst().contains("devd") }) else {
      return .warning(
        "domain", "\(name), a driver domain in which xl devd does not run: nobody runs hotplug scripts",
        mend: "start it: systemctl enable --now xendriverdomain, or xl devd")
    }
    return .ok("domain", "\(name), a driver domain with its xl devd")
  }

  /// Disks, and interfaces where there are any.
  private func devices(_ devices: [DeviceLook]) -> [Check] {
    let interfaces = devices.filter(\.isInterface)
    return told(devices.filter { !$0.isInterface }, as: "disk")
      + (interfaces.isEmpty ? [] : told(interfaces, as: "interface"))
  }

  /// One line when all is well, one for each device that is not.
  private func told(_ devices: [DeviceLook], as noun: String) -> [Check] {
    let bad = devices.compactMap { device($0, noun) }
    let rest = devices.count - bad.count
    guard rest > 0 || bad.isEmpty else { return bad }
    let count = "\(rest == 0 ? "no" : "\(rest)") \(bad.isEmpty ? "" : "other ")\(noun)\(rest == 1 ? "" : "s")"
    return bad + [
      .ok("\(noun)s", "\(count) in xenstore\(rest > 0 ? ", of which none is stuck" : "")")
    ]
  }

  private func device(_ device: DeviceLook, _ noun: String) -> Check? {
    let domain = device.address.domain
    let name =
      device.isInterface
      ? "interface \(device.address.device)" : "\(VirtualDevice(number: device.address.device))"
    func bad(_ finding: String, _ remedy: String) -> Check {
      .warning(noun, "\(device.address) (\(name) of domain \(domain)): \(finding)", mend: remedy)
    }
    let again =
      device.isInterface
      ? "detach the interface and attach it again (xl network-detach, or ringback network-detach)"
      : "detach the disk and attach it again (xl block-detach, or ringback detach)"
    if let trouble = device.trouble { return bad(trouble, "\(again); the toolstack wrote its nodes") }
    guard device.hasGuest else {
      return bad(
        "domain \(domain) is gone, and the \(noun)'s nodes are left", "xenstore-rm \(device.directory)")
    }
    if let error = device.error, device.own != .connected {
      return bad(Self.printable(error), "mend that, then \(again)")
    }
    guard device.isStuck else {
      // A device that is in use and has lost data says so.
      return device.error.map { bad(Self.printable($0), "as said there; ringback list shows it too") }
    }
    if device.own == .initialising {
      return bad(
        "in state Initialising: nobody has taken it",
        hasDaemon
          ? "the daemon's log says why; does it serve the kind \(device.address.kind) (--kind)?"
          : "start the daemon: systemctl start ringback, or ringback serve")
    }
    switch device.hotplugStatus {
    case "connected":
      return bad("in state InitWait though its guest is ready", "the daemon's log says why; \(again)")
    case nil where device.script == nil:
      return bad("in state InitWait though its guest is ready", "the daemon's log says why; \(again)")
    case nil:
      return bad(
        "in state InitWait: its script \(Self.printable(device.script ?? "")) has said nothing",
        "/var/log/xen/xen-hotplug.log says why;\(device.isInterface ? "" : " is tap-ctl in PATH?") Then \(again)"
      )
    case let status?:
      let why = device.hotplugError.map { ": \($0)" } ?? ""
      return bad(
        Self.printable("in state InitWait: its script ended with \(status)\(why)"), "mend that, then \(again)"
      )
    }
  }

  /// What others wrote, in a form that is fit for a terminal.
  private static func printable(_ text: String) -> String {
    text.unicodeScalars.prefix(200).map { $0.escaped(asASCII: true) }.joined()
  }
}
