import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// What a toolstack may write wrong: the disk is refused in words, and its neighbour is served.
@Suite(.serialized, .timeLimit(.minutes(10))) struct ToolstackNodesTests {
  static let refused: [(nodes: [String: String?], words: [String])] = [
    (["logical-sector-size": "700"], ["logical-sector-size", "4096"]),
    (["discard-enable": "yes"], ["discard-enable", "0 or 1"]),
    (["paused": "2"], ["paused", "0 or 1"]),
    (["device-type": "disk", "params": ""], ["params", "CD-ROM or removable"]),
    (["mode": "x"], ["/mode", "\"x\"", "r, w or w!"]),
    (["params": nil], ["/params", "missing"]),
    (["params": ""], ["/params", "missing"]),
    (["params": "disk.img"], ["/params", "disk.img"]),
    (["params": "raw:disk.img"], ["disk.img", "absolute"]),
    (["params": "cow:/srv/disk.cow"], ["cow", "raw", "qcow2"]),
    (["params": "raw:/nonexistent/disk.img"], ["/nonexistent/disk.img"]),
    (["params": "memory:1000"], ["1000", "4096"]),
    (["params": "null:"], ["/params", "64M"]),
    (["removable": "maybe"], ["/removable", "maybe", "0 or 1"]),
    (["frontend": "/local/domain/8/device/vbd/51712"], ["/frontend", "/local/domain/7/"]),
    (["frontend": nil], ["/frontend", "missing"]),
    (["frontend-id": "8"], ["/frontend-id", "7"]),
    (["frontend-id": "0x7"], ["/frontend-id", "0x7"]),
  ]

  @Test(arguments: refused.indices)
  func aWrongNodeIsToldAndTheNeighbourServed(index: Int) throws {
    let (nodes, words) = Self.refused[index]
    let world = try FrontendWorld()
    let other = FrontendWorld.device + 16
    try world.addDisk(FrontendWorld.guest, other, nodes: nodes)
    try world.addDisk()
    let frontend = try world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    let lines = world.daemon.lines.filter { $0.disk.device == other && $0.severity == .failure }
    let line = try #require(lines.first?.message, "nothing was told; the log: \(world.daemon.lines)")
    for word in words { #expect(line.contains(word), "\(line)") }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test(arguments: ["memory:8M", "null:8M"])
  func disksWithoutAFileAreServed(parameters: String) throws {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["params": parameters])
    for persistent in [true, false] {
      var options = BlockFrontendOptions()
      options.persistentGrants = persistent
      let frontend = try world.connected(options)
      #expect(frontend.disk?.sectorCount == 8 << 11)
      var load = BlockWorkload()
      load.readPercent = 50
      load.queueDepth = 32
      load.blockByteCount = 6144
      load.requestCount = 2000
      load.writesBetweenFlushes = 50
      if parameters.hasPrefix("memory") {
        try load.run(on: frontend, model: DiskModel(sectorCount: 8 << 11, seed: 1)).expectIntegrity()
      } else {
        let result = try load.run(on: frontend)
        #expect(result.requests >= 2000 && result.errors == 0)
      }
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
    }
    try world.stop()
  }

  /// A toolstack that swaps disks in one transaction: the daemon sees the new one in the old one's place.
  @Test func aDiskInTheOldOnesPlaceHasItsOwnImage() throws {
    let world = try FrontendWorld()
    let first = try world.addDisk()
    let second = world.path("second.img")
    try Data(repeating: 2, count: 4 << 20).write(to: URL(filePath: second))
    let old = try world.connected()
    #expect(try old.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)

    try world.addDisk(nodes: ["params": "raw:\(second)"], replacing: true)
    let new = try world.connected()
    #expect(new.disk?.sectorCount == 4 << 11)
    let transfer = ImageTransfer()
    #expect(try transfer.compare(path: second, with: new) == nil)
    try transfer.copyIn(path: second, to: new)
    try new.close(timeoutMilliseconds: worldMilliseconds)
    let untouched = try Data(contentsOf: URL(filePath: first))
    #expect(untouched.allSatisfy { $0 == 0 })
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func aDiskWithAScriptWaitsForIt() throws {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["script": "/etc/xen/scripts/block-tap"])
    let frontend = try world.frontend()
    let early = #expect(throws: BlockFrontendError.self) { try frontend.connect(timeoutMilliseconds: 300) }
    guard case .directory(.timedOut) = early else {
      Issue.record("\(String(describing: early))")
      return
    }
    // libxl has to see InitWait, whatever the frontend has written meanwhile.
    #expect(try frontend.directory.backendState() == .initWait)
    try world.write("hotplug-status", "connected")
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func kicksWithoutACauseDisturbNobody() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    let frontend = try world.connected()
    let queue = try frontend.queue()
    for _ in 0..<20_000 { try frontend.kick(queue) }
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
