import ArgumentParser

/// The one command.
@main
struct Ringback: ParsableCommand {
  /// Told by --version and to Prometheus.
  static let version = "0.1.0"

  static let configuration = CommandConfiguration(
    commandName: "ringback",
    abstract: "Serves disks and network interfaces to Xen guests from userspace.",
    discussion: """
      Start the daemon with `ringback serve`. Attach a disk to a running or paused guest with \
      `ringback attach`, an interface with `ringback network-attach`, or let xl do it. `ringback demo` shows all of it on a machine without Xen.
      """,
    version: version,
    subcommands: [
      Serve.self, Attach.self, Detach.self, List.self, Stats.self, Top.self, Pause.self, Resume.self,
      Resize.self,
      Insert.self, Eject.self, Limit.self, NetworkAttach.self, NetworkDetach.self, Capture.self,
      TapControl.self,
      Doctor.self, Demo.self, Guest.self, GuestNetworkCommand.self, LoopbackCommand.self,
      ParseConfiguration.self,
    ])

  /// By the name tap-ctl, the program is blktap's command of that name.
  static func main() {
    let words = CommandLine.arguments
    if words.first?.split(separator: "/").last == TapCommand.name[...] {
      TapCommand.main(Array(words.dropFirst()))
    }
    main(nil)
  }
}
