import Blkback
import Frontends
import RingKit
import Testing

/// What a boot loader or an earlier kernel left in the frontend's directory must not mislead the backend
/// (blkif.h, notes on multi-page and multi-queue; Linux's and QEMU's reading of them).
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendStaleKeysTests {
  /// One way to write the keys, and names that an earlier frontend may have left beside them.
  struct Style: Sendable, CustomTestStringConvertible {
    var name: String
    var order = 0
    var queues = 1
    var writesZeroOrder = false
    /// What is written beyond the usual, or otherwise.
    var keys: [String: String?] = [:]
    var stale: [String]

    var testDescription: String { name }
  }

  private static let queueKeys = ["queue-0/ring-ref", "queue-0/event-channel", "queue-1/ring-ref"]

  static let styles = [
    Style(
      name: "one page, no order",
      stale: ["ring-ref0", "ring-ref1", "feature-large-sector-size"] + queueKeys),
    Style(
      name: "one page, order 0, ring-ref0", writesZeroOrder: true,
      stale: ["ring-ref", "ring-ref1"] + queueKeys),
    Style(
      name: "one page, order 0, ring-ref", keys: ["ring-page-order": "0"], stale: ["ring-ref1"] + queueKeys),
    Style(
      name: "one page, num-ring-pages 1", keys: ["num-ring-pages": "1"],
      stale: ["ring-ref0", "ring-ref1"] + queueKeys),
    Style(name: "two pages", order: 1, stale: ["ring-ref", "ring-ref2", "queue-0/ring-ref0"] + queueKeys),
    Style(
      name: "two pages, num-ring-pages", order: 1, keys: ["ring-page-order": nil, "num-ring-pages": "2"],
      stale: ["ring-ref", "ring-ref2"] + queueKeys),
    Style(
      name: "two pages, both keys, the order counts", order: 1, keys: ["num-ring-pages": "4"],
      stale: ["ring-ref", "ring-ref2", "ring-ref3"]),
    Style(
      name: "one queue, said so", keys: ["multi-queue-num-queues": "1"],
      stale: ["ring-ref0", "queue-0/ring-ref0"] + queueKeys),
    Style(
      name: "two queues", queues: 2,
      stale: ["ring-ref", "ring-ref0", "event-channel", "queue-0/ring-ref0", "queue-2/ring-ref"]),
    Style(
      name: "two queues of two pages", order: 1, queues: 2,
      stale: ["ring-ref", "ring-ref0", "event-channel", "queue-0/ring-ref", "queue-1/ring-ref2"]),
  ]

  @Test(arguments: styles)
  func everySetOfStaleKeysIsPassedOver(style: Style) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 2
    let world = try FrontendWorld(offer: offer)
    try world.addDisk()
    let frontend = try world.frontend()
    frontend.options.ringPageOrder = style.order
    frontend.options.queueCount = style.queues
    frontend.options.writesZeroRingPageOrder = style.writesZeroOrder
    for set in 0..<1 << style.stale.count {
      var keys = style.keys
      // Neither a grant nor a port of anybody's.
      for (bit, name) in style.stale.enumerated() where set & 1 << bit != 0 { keys[name] = "61234" }
      // The old flag of the sector size is a flag, and means nothing where sectors have 512 bytes.
      if keys["feature-large-sector-size"] != nil { keys["feature-large-sector-size"] = "1" }
      frontend.options.keys = keys
      do {
        try frontend.connect(timeoutMilliseconds: worldMilliseconds)
        #expect(frontend.queues.count == style.queues)
        #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
        #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
        try frontend.close(timeoutMilliseconds: worldMilliseconds)
      } catch {
        throw WorldFailure("\(style.name) with \(keys.keys.sorted()): \(error)")
      }
    }
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  /// Without `protocol` the layout is that of 32-bit x86, whatever the header calls native; data shows it.
  @Test(arguments: [1, 32]) func aFrontendWithoutAProtocolHas32BitSlots(depth: Int) throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.abi = .x86_32
    options.keys = ["protocol": nil]
    let frontend = try world.connected(options)
    var load = BlockWorkload()
    load.readPercent = 50
    load.maximumBlockCount = 11
    load.queueDepth = depth
    load.requestCount = 100
    load.stallMilliseconds = worldMilliseconds
    let model = DiskModel(sectorCount: 1 << 11, seed: 32, initial: .zero)
    try load.run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
