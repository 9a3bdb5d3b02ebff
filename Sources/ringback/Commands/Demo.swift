import ArgumentParser
import Foundation
import RingKit

/// The main job, shown on any Linux machine.
struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve a disk and a network interface to guest processes on this machine, without Xen.",
    discussion: """
      Needs about 200 MiB in the directory for temporary files, and mke2fs and e2fsck if they are there. The \
      interface needs root, ip, ping and iperf3; it connects two network namespaces that nothing outside sees.
      """)

  @Flag(help: "Keep the directory with the image, the sockets and the logs.")
  var keep = false

  func run() throws {
    let stage = try DemoStage()
    defer { stage.strike(keeping: keep) }
    print("A disk for a guest, without Xen\n")

    try stage.step("an empty disk image of 64 MiB, and a filesystem for the guest to put on it") {
      try stage.makeImages()
    }
    try stage.step("a machine in miniature: xenstore, grants and event channels between processes") {
      try stage.startMachine()
    }
    try stage.step("the daemon: ringback serve") { try stage.startDaemon() }
    try stage.step("a toolstack's nodes for the disk: ringback attach --domain 1 --vdev xvda") {
      try stage.attach()
    }
    stage.show(
      try stage.nodes(), title: "what the toolstack and the daemon wrote into xenstore (domain 0's side)")

    let guest = try stage.step(
      "a guest process: connects, writes the filesystem, flushes, reads it back, compares"
    ) {
      try stage.guest(["--write-image", stage.filesystem, "--verify-image", stage.filesystem])
    }
    let copied = try stage.step("the same without persistent grants: every page is grant-copied") {
      try stage.guest(["--no-persistent-grants", "--verify-image", stage.filesystem])
    }
    let random = try stage.step("random 4 KiB reads and writes, 32 in flight, every sector judged") {
      try stage.guest(["--load", "randrw", "--check", "--duration", "2000", "--depth", "32"], onCopy: true)
    }
    try stage.step("the image on the host is that filesystem, and it is clean") { try stage.checkImage() }
    let network = try showNetwork(on: stage)
    try stage.step("a clean stop: the daemon drains and ends") { try stage.stopDaemon() }

    stage.show(
      [
        ("ring", "\(guest.ringSlots) slots, one page, layout \(guest.layout)"),
        ("guest pages", guest.persistentGrants ? "stay mapped, no copy on our side" : "copied"),
        ("written and read back", "\(guest.writtenBytes ?? 0) bytes, the same"),
        ("read with grant copies", copied.verifiedImage == nil ? "differs" : "the same"),
        (
          "random load",
          "\(random.load?.requests ?? 0) requests, \(Int(random.load?.requestsPerSecond ?? 0)) a second"
        ),
        (
          "",
          "\(Int((random.load?.bytesPerSecond ?? 0) / 1_048_576)) MiB/s, "
            + "median \((random.load?.latencyMedianNanoseconds ?? 0) / 1000) us"
        ),
        ("sectors judged", "\(random.load?.verifiedSectors ?? 0), wrong: \(random.load?.mismatches ?? 0)"),
      ] + network, title: "what happened")
    guard random.load?.mismatches == 0, random.load?.errors == 0 else {
      throw CommandError("the guest read something else than it wrote; the logs are in \(stage.directory)")
    }
    print(
      """
      demo: everything the guest wrote came back

      The same with a real Xen, in dom0 or a driver domain, as root:
        modprobe -a xen-gntdev xen-evtchn
        ringback serve &
        xl create -p guest.cfg
        ringback attach --domain $(xl domid guest) --vdev xvda /srv/disk.img
        xl unpause guest
      """)
  }

  /// The interface, where there can be one: rows for the end.
  private func showNetwork(on stage: DemoStage) throws -> [(String, String)] {
    if let obstacle = DemoStage.networkObstacle {
      print("    no network interface is shown: \(obstacle)")
      return []
    }
    try stage.step("a toolstack's nodes for an interface, and the daemon's TAP: ringback network-attach") {
      try stage.attachNetwork()
    }
    try stage.step("a guest with a network stack of its own, two queues, all offloads") {
      try stage.startGuestNetwork()
    }
    let report = try stage.step("ping, and TCP in bulk both ways (iperf3)") { try stage.useNetwork() }
    try stage.step("the guest lets go of its interface") { try stage.stopGuestNetwork() }
    func gigabits(_ bits: Double) -> String { String(format: "%.2f Gbit/s", bits / 1e9) }
    return [
      ("ping", report.ping),
      ("TCP to the guest", gigabits(report.toGuest)), ("TCP from the guest", gigabits(report.fromGuest)),
    ]
  }
}
