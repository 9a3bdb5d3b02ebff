import ArgumentParser
import Frontends
import Glibc
import Netback
import RingKit

/// A guest's side of an interface, as a process.
struct GuestNetworkCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "guest-network",
    abstract:
      "Be a guest: connect to an interface as a kernel's netfront would, and give it to the network here.",
    discussion: """
      Runs in the domain given with --own-domain, on loopback or in a Xen domain. Frames of a TAP, made in the \
      present network namespace, go through the interface until SIGTERM or SIGINT: `ip netns exec guest ringback \
      guest-network ...`, then `ip netns exec guest ping ...`.
      """)

  @OptionGroup var host: HostOptions

  @Option(help: ArgumentHelp("The interface's number.", valueName: "number"))
  var vif: UInt32 = 0

  @Option(help: ArgumentHelp("The TAP to make.", valueName: "name"))
  var tap = "eth0"

  @Option(help: ArgumentHelp("Queues to use, as far as the backend offers them.", valueName: "count"))
  var queues = 1

  @Option(
    help: ArgumentHelp(
      "Do without some of: sg, csum4, csum6, gso4, gso6, split, notify; separated by commas.",
      valueName: "names"))
  var without = ""

  @Option(help: ArgumentHelp("Bytes to leave free before received data.", valueName: "bytes"))
  var headroom = 0

  @Flag(help: "Listen only to multicast that was asked for; this guest asks for none.")
  var multicastControl = false

  static let offloads: [String: NetOffloads] = [
    "sg": .scatterGather, "csum4": .checksumIPv4, "csum6": .checksumIPv6, "gso4": .segmentationIPv4,
    "gso6": .segmentationIPv6,
  ]

  private var excluded: Set<String> { Set(without.split(separator: ",").map(String.init)) }

  func validate() throws {
    let known = Set(Self.offloads.keys).union(["split", "notify"])
    if let unknown = excluded.subtracting(known).min() {
      throw ValidationError("--without knows \(known.sorted().joined(separator: ", ")); not \"\(unknown)\"")
    }
    guard (1...64).contains(queues) else { throw ValidationError("--queues is 1 to 64") }
    guard (0...0x7FFF).contains(headroom) else { throw ValidationError("--headroom is 0 to 32767") }
  }

  func run() throws {
    // Before any thread starts.
    let signals = try TerminationSignals()
    var options = NetFrontendOptions()
    options.queueCount = queues
    options.splitsEventChannels = !excluded.contains("split")
    options.notifiesOnPosting = !excluded.contains("notify")
    options.headroomByteCount = headroom
    options.requestsMulticastControl = multicastControl
    for (name, offload) in Self.offloads where excluded.contains(name) { options.offloads.remove(offload) }
    let frontend = try NetFrontend(
      hypervisor: host.open(), domain: DomainID(rawValue: host.ownDomain), device: vif, options: options)
    try frontend.connect()
    let network = try GuestNetwork(frontend, tapName: tap)
    print("connected: \(tap), queues: \(frontend.queues.count)")
    // Whoever started this waits for that line.
    fflush(nil)
    try network.run(until: signals.descriptor)
    try frontend.close()
  }
}
