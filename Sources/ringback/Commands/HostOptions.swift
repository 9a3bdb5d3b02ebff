import ArgumentParser
import Glibc
import Loopback
import RingKit

/// Which machine lies below: Xen, or Loopback's imitation of it.
enum HypervisorKind: String, CaseIterable, ExpressibleByArgument {
  case xen
  case loopback
}

/// Options of every command that talks to the machine below.
struct HostOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The machine below: xen, or loopback (an imitation of Xen on any Linux).",
      discussion: "Xen is the default where /dev/xen exists."))
  var hypervisor: HypervisorKind?

  @Option(help: ArgumentHelp("Directory of the loopback machine's sockets.", valueName: "path"))
  var loopbackDirectory = "/run/ringback/loopback"

  @Option(help: ArgumentHelp("This domain's number, on loopback only (default 0).", valueName: "domid"))
  var ownDomain: UInt16 = 0

  /// Opens the machine, or says why not and what to do.
  func open() throws -> any Hypervisor {
    // Sound: access only reads the string for the call.
    let kind = hypervisor ?? (unsafe access("/dev/xen", F_OK) == 0 ? .xen : nil)
    switch kind {
    case .xen: return XenHypervisor()
    case .loopback:
      return try LoopbackHypervisor(directory: loopbackDirectory, domain: DomainID(rawValue: ownDomain))
    case nil:
      throw CommandError(
        "this is no Xen domain: there is no /dev/xen. On a Xen host, load the modules xen-gntdev and xen-evtchn; "
          + "anywhere else, use --hypervisor loopback (see `ringback loopback --help`), or try `ringback demo`"
      )
    }
  }
}

/// Which device a command is about.
struct DeviceOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: ArgumentHelp("The guest's domain number.", valueName: "domid"))
  var domain: UInt16

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("The disk's name in the guest, such as xvda, or its number.", valueName: "name"))
  var vdev: VirtualDeviceArgument

  @Option(help: ArgumentHelp("Kind of backend, the directory below backend/ in xenstore.", valueName: "kind"))
  var kind = defaultKind

  var domainID: DomainID { DomainID(rawValue: domain) }

  func validate() throws {
    guard domain <= DomainID.highestOrdinary.rawValue else {
      throw ValidationError("--domain is a number from 0 to \(DomainID.highestOrdinary)")
    }
    try validateKind(kind)
  }
}

/// The kind that libxl knows for a block backend in userspace (libxl_types_internal.idl, VBD3).
let defaultKind = "vbd3"

/// Refuses kinds that cannot be part of a xenstore path.
func validateKind(_ kind: String) throws {
  guard isKind(kind) else {
    throw ValidationError("a kind is 1 to 32 letters, digits, - or _, such as vbd3; not \"\(kind)\"")
  }
}

/// Whether it can be a kind.
func isKind(_ kind: String) -> Bool { kind.wholeMatch(of: /[A-Za-z0-9_-]{1,32}/) != nil }
