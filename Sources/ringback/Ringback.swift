import ArgumentParser

/// The one command.
@main
struct Ringback: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ringback",
    abstract: "Serves disks to Xen guests from userspace.",
    discussion: """
      Start the daemon with `ringback serve`. Attach a disk to a running or paused guest with
      `ringback attach`, or let xl do it. `ringback demo` shows all of it on a machine without Xen.
      """,
    version: "0.1.0",
    subcommands: [
      Serve.self, Attach.self, Detach.self, List.self, Demo.self, Guest.self, LoopbackCommand.self,
    ])
}
