import ArgumentParser
import Netback
import RingKit

/// Which interface a command is about.
struct InterfaceOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: ArgumentHelp("The guest's domain number.", valueName: "domid"))
  var domain: UInt16

  @Option(help: ArgumentHelp("The interface's number in the guest.", valueName: "number"))
  var vif: UInt32 = 0

  @Option(help: ArgumentHelp("Longest wait, in seconds (1 to 3600).", valueName: "seconds"))
  var timeout = 10

  var domainID: DomainID { DomainID(rawValue: domain) }
  var handle: InterfaceHandle { InterfaceHandle(number: vif) }

  func validate() throws {
    guard domain <= DomainID.highestOrdinary.rawValue else {
      throw ValidationError("--domain is a number from 0 to \(DomainID.highestOrdinary)")
    }
    guard vif <= 0xFFFF else { throw ValidationError("--vif is a number from 0 to 65535") }
    guard (1...3600).contains(timeout) else { throw ValidationError("--timeout is 1 to 3600 seconds") }
  }
}

/// Attaches an interface without a toolstack.
struct NetworkAttach: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "network-attach",
    abstract: "Attach a network interface to a guest, as a toolstack would.",
    discussion: """
      Writes the nodes of both ends into xenstore and waits until `ringback serve --kind vif` has made the \
      interface's TAP, vifDOMAIN.NUMBER. No script is run: put the TAP into a bridge and set it up, \
      `ip link set vif1.0 master br0 up`. With --link switch:NAME no TAP is made: the daemon passes frames between \
      all interfaces that name the same switch.
      """)

  @OptionGroup var interface: InterfaceOptions
  @OptionGroup var host: HostOptions

  @Option(
    help: ArgumentHelp(
      "The guest's address (default: 00:16:3e and three numbers of the device's).", valueName: "address"))
  var mac: String?

  @Option(help: ArgumentHelp("Limit, as xl writes it: BYTES,MICROSECONDS.", valueName: "rate"))
  var rate: String?

  @Option(help: ArgumentHelp("Where packets go: tap, or switch:NAME.", valueName: "link"))
  var link: String?

  func validate() throws {
    if let mac, EthernetAddress(mac)?.isMulticast != false {
      throw ValidationError(
        "--mac is the address of one interface, such as 00:16:3e:01:02:03; not \"\(mac)\"")
    }
  }

  func run() throws {
    let toolstack = try Toolstack<InterfaceHandle>(host: host.open(), kind: DaemonVifs.kind)
    let (domain, handle) = (interface.domainID, interface.handle)
    let number = UInt64(domain.rawValue) << 8 | UInt64(handle.number & 0xFF)
    let address = mac.flatMap { EthernetAddress($0) } ?? EthernetAddress(rawValue: 0x0016_3E00_0000 | number)
    let nodes = [("handle", "\(handle.number)"), ("mac", "\(address)")]
    let optional = [("rate", rate), ("link", link)].compactMap { name, value in value.map { (name, $0) } }
    try toolstack.attach(
      domain, handle, frontendNodes: nodes, backendNodes: nodes + [("type", "vif")] + optional)
    let state: XenbusState?
    do {
      state = try toolstack.waitForState(of: domain, handle, seconds: interface.timeout) {
        $0 != .initialising
      }
    } catch {
      try? toolstack.remove(domain, handle)
      throw error
    }
    guard state == .initWait || state == .initialised || state == .connected else {
      let reason = try toolstack.errorText(domain, handle) ?? "the daemon's log says why"
      try toolstack.remove(domain, handle)
      throw CommandError("the daemon refused \(handle) of domain \(domain): \(reason)")
    }
    print(
      "\(handle) of domain \(domain) has the address \(address) and the link \(link ?? "vif\(domain).\(handle.number)")"
    )
  }
}

/// Detaches an interface.
struct NetworkDetach: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "network-detach",
    abstract: "Detach a network interface from a guest and take its nodes away.",
    discussion:
      "Asks the guest to let go of it and waits; what the guest does not close in time is taken away.")

  @OptionGroup var interface: InterfaceOptions
  @OptionGroup var host: HostOptions

  func run() throws {
    let toolstack = try Toolstack<InterfaceHandle>(host: host.open(), kind: DaemonVifs.kind)
    let (domain, handle) = (interface.domainID, interface.handle)
    try toolstack.beginDetaching(domain, handle)
    let closed = try? toolstack.waitForState(of: domain, handle, seconds: interface.timeout) {
      $0 == .closed || $0 == nil
    }
    try toolstack.remove(domain, handle)
    print(
      "\(handle) of domain \(domain) is detached\(closed == nil ? "; the guest did not let go of it" : "")")
  }
}
