import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// What is announced to frontends: by configuration, by medium, and nothing that does not work.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceOfferTests {
  /// One case: a daemon's offer, a medium, nodes of the toolstack, and the nodes that follow (nil: absent).
  struct Case: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var offer = VbdOffer()
    var discard: DiscardSupport?
    var queues = Int.max
    var threads = 1
    var nodes: [String: String?] = [:]
    var published: [String: String?]
    /// Operations that are answered "not supported".
    var refused: [Blkback.BlockOperation] = []

    init(
      _ name: String, discard: DiscardSupport? = DiscardSupport(unitByteCount: 4096), queues: Int = .max,
      threads: Int = 1, nodes: [String: String?] = [:], published: [String: String?],
      refused: [Blkback.BlockOperation] = [], _ change: (inout VbdOffer) -> Void = { _ in }
    ) {
      testDescription = name
      self.discard = discard
      self.queues = queues
      self.threads = threads
      self.nodes = nodes
      self.published = published
      self.refused = refused
      change(&offer)
    }
  }

  private static let noDiscard: [String: String?] = [
    "feature-discard": "0", "discard-granularity": nil, "discard-alignment": nil, "discard-secure": nil,
  ]

  static let cases: [Case] = [
    Case(
      "everything",
      published: [
        "feature-flush-cache": "1", "feature-barrier": "1", "feature-persistent": "1",
        "feature-discard": "1", "discard-granularity": "512", "discard-alignment": "0", "discard-secure": "0",
        "feature-max-indirect-segments": "256", "max-ring-page-order": "4", "max-ring-pages": "16",
        "multi-queue-max-queues": "1", "info": "0", "sector-size": "512", "sectors": "2048",
      ]),
    Case(
      "secure discard", discard: DiscardSupport(unitByteCount: 512, isSecurePossible: true),
      published: ["feature-discard": "1", "discard-secure": "1"]),
    Case("a medium without discard", discard: nil, published: noDiscard, refused: [.discard]),
    Case(
      "discard forbidden by the toolstack", nodes: ["discard-enable": "0"], published: noDiscard,
      refused: [.discard]),
    Case(
      "discard allowed by the toolstack", nodes: ["discard-enable": "1"], published: ["feature-discard": "1"]),
    Case(
      "read-only", nodes: ["mode": "r"], published: noDiscard.merging(["info": "4"]) { $1 },
      refused: [.discard]),
    Case(
      "a CD-ROM is never writable", nodes: ["device-type": "cdrom", "mode": "w"],
      published: noDiscard.merging(["info": "5"]) { $1 }, refused: [.discard]),
    Case(
      "granularity follows the sector", nodes: ["logical-sector-size": "4096"],
      published: ["discard-granularity": "4096", "discard-alignment": "0", "sector-size": "4096"]),
    Case("no discard offered", published: noDiscard, refused: [.discard]) { $0.discard = false },
    Case("no flush", published: ["feature-flush-cache": "0"], refused: [.flush]) { $0.flush = false },
    Case("no barrier", published: ["feature-barrier": "0"], refused: [.writeBarrier]) { $0.barrier = false },
    Case("no indirect requests", published: ["feature-max-indirect-segments": nil], refused: [.indirect]) {
      $0.indirectSegments = 0
    },
    Case("few indirect segments", published: ["feature-max-indirect-segments": "13"]) {
      $0.indirectSegments = 13
    },
    Case("no persistent grants", published: ["feature-persistent": "0"]) { $0.persistentGrants = false },
    Case("small rings", published: ["max-ring-page-order": "1", "max-ring-pages": "2"]) {
      $0.maximumRingPageOrder = 1
    },
    Case("a queue a thread", threads: 3, published: ["multi-queue-max-queues": "3"]),
    Case("more queues than threads", threads: 2, published: ["multi-queue-max-queues": "5"]) {
      $0.maximumQueues = 5
    },
    Case("never more than eight", published: ["multi-queue-max-queues": "8"]) { $0.maximumQueues = 99 },
    Case("a medium for one queue", queues: 1, published: ["multi-queue-max-queues": "1"]) {
      $0.maximumQueues = 4
    },
  ]

  @Test(arguments: cases)
  func itIsPublishedAndServed(shape: Case) throws {
    let world = try FrontendWorld(offer: shape.offer, threadCount: shape.threads) { (_) throws(VbdError) in
      try DescribedStore(discard: shape.discard, maximumQueueCount: shape.queues)
    }
    // What an earlier daemon or connection has left says the contrary.
    var nodes = shape.nodes
    for (name, value) in shape.published where nodes[name] == nil {
      nodes[name] = value == nil ? "1" : value == "1" ? "0" : "1"
    }
    try world.addDisk(nodes: nodes)
    let frontend = try world.connected()
    for (name, value) in shape.published { #expect(try world.node(name) == value, "\(name)") }
    for operation in shape.refused {
      #expect(try statusOfRaw(operation, frontend) == .notSupported, "\(operation)")
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)

    // Again for the next connection, whatever became of the nodes.
    for (name, value) in shape.published where value != nil { try world.write(name, "7") }
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    for (name, value) in shape.published { #expect(try world.node(name) == value, "\(name) again") }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// The answer to an operation that a frontend would not send unasked.
  private func statusOfRaw(_ operation: Blkback.BlockOperation, _ frontend: BlockFrontend) throws
    -> BlockStatus
  {
    let slot =
      operation == .discard
      ? BlockRequest(discarding: 8, id: 77, sectorNumber: 0, handle: 0, abi: .x86_64).encode()
      : BlockRequest(
        operation: operation, segmentCount: 0, id: 77, sectorNumber: 0, handle: 0, abi: .x86_64
      ).encode()
    #expect(try frontend.queue().submitRaw(slot))
    try frontend.push()
    let completion = try frontend.answer()
    #expect(completion.response.id == 77)
    return completion.response.status
  }

  @Test(arguments: ["0", "2", "9", "4294967297", "-1", "x"])
  func queuesThatWereNotOfferedAreRefused(count: String) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 8
    let world = try FrontendWorld(offer: offer) { (_) throws(VbdError) in
      try DescribedStore(maximumQueueCount: 1)
    }
    try world.addDisk()
    var options = BlockFrontendOptions()
    options.keys = ["multi-queue-num-queues": count]
    let frontend = try world.frontend(FrontendWorld.guest, FrontendWorld.device, options)
    #expect(throws: BlockFrontendError.self) { try frontend.connect(timeoutMilliseconds: worldMilliseconds) }
    let reason = try world.errorText() ?? "nothing"
    #expect(reason.contains("multi-queue-num-queues") && reason.contains("from 1 to 1"), "\(reason)")
    try world.stop()
  }

  /// With one queue the keys stand at the top level, whatever an earlier frontend has left.
  @Test func oneQueueHasItsKeysAtTheTop() throws {
    var offer = VbdOffer()
    offer.maximumQueues = 4
    let world = try FrontendWorld(offer: offer)
    try world.addDisk()
    var options = BlockFrontendOptions()
    options.keys = [
      "multi-queue-num-queues": "1", "queue-0/ring-ref": "60000", "queue-0/event-channel": "60000",
      "queue-1/ring-ref": "60001", "queue-1/event-channel": "60001",
    ]
    let frontend = try world.connected(options)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func whatIsChangedAfterConnectingHasNoEffect() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk()
    let frontend = try world.connected()
    for (name, value) in [
      ("ring-ref", "1"), ("ring-ref0", "1"), ("ring-page-order", "4"), ("event-channel", "4000"),
      ("protocol", "vax-abi"), ("multi-queue-num-queues", "1000"), ("feature-persistent", "0"),
      ("feature-large-sector-size", "1"), ("queue-0/ring-ref", "1"), ("nonsense", "1"),
    ] {
      try frontend.directory.store.write("\(frontend.directory.path)/\(name)", value)
    }
    for (name, value) in [
      ("mode", "r"), ("params", "raw:/nonexistent"), ("logical-sector-size", "4096"), ("discard-enable", "0"),
      ("removable", "junk"), ("device-type", "cdrom"), ("direct-io-safe", "1"), ("nonsense", "1"),
    ] {
      try world.write(name, value)
    }
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try world.resize() == .success(8 << 11), "everything was looked at")
    #expect(try frontend.perform(BlockFrontRequest(.discard, sectorCount: 8)) != .error)
    #expect(try ImageTransfer().compare(path: image, with: frontend) == nil)
    #expect(try frontend.directory.backendState() == .connected)
    try world.stop()
  }

  /// A frontend may be seen Connected without ever having been seen Initialised: watches coalesce.
  @Test func aFrontendMaySkipAState() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    let frontend = try world.connected()
    try world.stop()
    try world.write("state", XenbusState.initWait.text)
    try world.startAgain()
    try world.waitUntilServed()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try frontend.directory.backendState() == .connected)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// The node gates mapped pages under direct I/O in kernels that gave pages back while a network card still
  /// sent them. Linux's gntdev waits for that since 4.0, so pages are mapped whatever it says.
  @Test(arguments: [nil, "0", "1", "junk"])
  func pagesAreMappedWhateverDirectIOSafeSays(value: String?) throws {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["direct-io-safe": value, "bootable": "1", "specification": "xen"])
    let frontend = try world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    // The ring's page and the data's.
    #expect(world.mappedPageCount == 2)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// Two disks and one image: (first's mode, second's mode, whether the second is served).
  static let sharing: [(first: String, second: String, isServed: Bool)] = [
    ("w", "w", false), ("w!", "w", false), ("r", "r", true), ("w!", "w!", true),
  ]

  @Test(arguments: sharing)
  func anImageHasOneWriterUnlessAllAllowIt(first: String, second: String, isServed: Bool) throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(nodes: ["mode": first])
    let frontend = try world.connected()
    let other = FrontendWorld.device + 16
    try world.addDisk(FrontendWorld.guest, other, nodes: ["mode": second, "params": "raw:\(image)"])
    let neighbour = try world.frontend(FrontendWorld.guest, other)
    if isServed {
      try neighbour.connect(timeoutMilliseconds: worldMilliseconds)
      #expect(try neighbour.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
      try neighbour.close(timeoutMilliseconds: worldMilliseconds)
    } else {
      try world.waitForError(other) {
        $0.contains(image) && $0.contains("in use") && ($0.contains("mode") || $0.contains("detach"))
      }
    }
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
