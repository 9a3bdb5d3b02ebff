import ArgumentParser
import Glibc
import Loopback
import RingKit

/// The machine below, for machines without Xen.
struct LoopbackCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "loopback",
    abstract: "Run a Xen in miniature: xenstore, grants and event channels for processes of this machine.",
    discussion: """
      Other commands join it with --hypervisor loopback --loopback-directory PATH. Its xenstore speaks the real \
      protocol, so that `XENSTORED_PATH=PATH/xenstored xenstore-ls -f` works. Runs until SIGTERM.
      """)

  @Option(help: ArgumentHelp("Directory for the sockets; made when it is missing.", valueName: "path"))
  var loopbackDirectory = "/run/ringback/loopback"

  @Option(name: .shortAndLong, help: ArgumentHelp("Guests beside domain 0; repeat it.", valueName: "domid"))
  var domain: [UInt16] = [1]

  func validate() throws {
    guard domain.allSatisfy({ $0 > 0 && $0 <= DomainID.highestOrdinary.rawValue }) else {
      throw ValidationError("--domain is a number from 1 to \(DomainID.highestOrdinary)")
    }
  }

  func run() throws {
    let signals = try TerminationSignals()
    let host = try LoopbackHost(directory: loopbackDirectory)
    for number in domain { try host.addDomain(DomainID(rawValue: number)) }
    print(
      "loopback machine ready in \(loopbackDirectory); domains 0 \(domain.map(String.init).joined(separator: " "))"
    )
    // A parent that waits for the line sees it now.
    fflush(nil)
    var poll = DescriptorPoll()
    poll.set([(signals.descriptor, false)])
    while signals.next() != .stop { _ = try poll.wait(timeoutMilliseconds: nil) }
    host.stop()
  }
}
