import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Logical sectors of other sizes than 512 bytes, as Xen 4.20 settled them: every number on the wire stays in
/// units of 512 bytes; only alignment and length change.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceSectorTests {
  @Test(arguments: [1024, 2048, 4096])
  func largeSectorsAreServedAndSmallerPiecesRefused(sectorByteCount: Int) throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(nodes: ["logical-sector-size": "\(sectorByteCount)"])
    var options = BlockFrontendOptions()
    options.allowsMisalignedRequests = true
    let frontend = try world.connected(options)
    let disk = try #require(frontend.disk)
    #expect(disk.sectorByteCount == sectorByteCount)
    #expect(disk.sectorCount == 8 << 11, "the size is in 512-byte units")
    #expect(disk.physicalSectorByteCount >= sectorByteCount)
    let units = sectorByteCount / 512
    for operation in [BlockOperation.read, .write] {
      let whole = BlockFrontRequest(operation, sector: UInt64(units), sectorCount: units)
      #expect(try frontend.perform(whole) == .okay)
      #expect(
        try frontend.perform(BlockFrontRequest(operation, sector: 1, sectorCount: units)) == .error, "offset")
      #expect(
        try frontend.perform(BlockFrontRequest(operation, sector: 0, sectorCount: units / 2)) == .error,
        "length")
      #expect(
        try frontend.perform(
          BlockFrontRequest(operation, sector: 0, sectorCount: units, firstPageSector: units / 2)) == .error,
        "place in the page")
    }
    var load = BlockWorkload()
    load.readPercent = 50
    load.blockByteCount = sectorByteCount
    load.queueDepth = 8
    load.requestCount = 400
    load.stallMilliseconds = worldMilliseconds
    let model = DiskModel(sectorCount: 8 << 11, seed: 5, initial: .zero)
    try load.run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)

    // The same bytes in sectors of 512, by a toolstack that gives the node up.
    try world.stop()
    try world.toolstack.remove("\(world.backendPath())/logical-sector-size")
    try world.startAgain()
    let small = try world.connected()
    #expect(small.disk?.sectorByteCount == 512)
    #expect(try ImageTransfer().compare(path: image, with: small) == nil)
    try small.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func aFrontendThatMightCountInSectorsIsRefusedWhereItMatters() throws {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["logical-sector-size": "4096"])
    var options = BlockFrontendOptions()
    options.keys = ["feature-large-sector-size": "1"]
    let frontend = try world.frontend(FrontendWorld.guest, FrontendWorld.device, options)
    let error = #expect(throws: BlockFrontendError.self) {
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    }
    guard case .directory(.backendClosed) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    let reason = try world.errorText() ?? "nothing"
    #expect(
      reason.contains("feature-large-sector-size") && reason.contains("logical-sector-size"), "\(reason)")
    #expect(world.mappedPageCount == 0)
    frontend.options.keys = ["feature-large-sector-size": "0"]
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(frontend.disk?.sectorByteCount == 4096)
    #expect(try world.errorText() == nil)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)

    // With 512-byte sectors both countings are the same: Windows, which always sets the node, is served.
    let other = FrontendWorld.device + 16
    try world.addDisk(FrontendWorld.guest, other)
    let windows = try world.frontend(FrontendWorld.guest, other, options)
    try windows.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try windows.perform(BlockFrontRequest(.read, sectorCount: 1)) == .okay)
    try windows.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// blkif.h: `sectors` * 512 is a multiple of `physical-sector-size`, and that one of `sector-size`.
  @Test(arguments: [(4096 * 3, 512), (4096 * 3 + 512, 512), (4096 * 3 + 1024, 1024), (4096 * 3 + 2048, 512)])
  func theHintOfThePhysicalSectorFitsTheSize(byteCount: Int, logical: Int) throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: byteCount, nodes: ["logical-sector-size": "\(logical)"])
    let frontend = try world.connected()
    let disk = try #require(frontend.disk)
    #expect(disk.sectorCount == UInt64(byteCount / 512))
    #expect(byteCount % disk.physicalSectorByteCount == 0)
    #expect(disk.physicalSectorByteCount % disk.sectorByteCount == 0)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test(arguments: [
    ("4096", 4096 * 3 + 512, "4096"), ("1024", 1024 + 512, "logical-sector-size"), ("256", 8192, "512"),
    ("8192", 8192, "4096"), ("1536", 8192, "512, 1024, 2048 or 4096"), ("4k", 8192, "decimal"),
  ])
  func sectorsThatDoNotFitAreRefusedInWords(value: String, byteCount: Int, word: String) throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: byteCount, nodes: ["logical-sector-size": value])
    try world.waitForError { $0.contains(word) }
    try world.stop()
  }
}
