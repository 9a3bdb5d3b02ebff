import Blkback
import Frontends
import RingKit
import Testing

/// A frontend and a backend finding each other, and parting.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendConnectionTests {
  @Test func connectsClosesAndConnectsAgain() throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 3 << 20)
    let frontend = try world.connected()
    #expect(frontend.directory.backendDomain == FrontendWorld.backend)
    #expect(frontend.features?.flush == true)
    let disk = try #require(frontend.disk)
    #expect(disk.sectorCount == 3 << 11)
    #expect(disk.sectorByteCount == 512)
    #expect(!disk.isReadOnly)
    #expect(try frontend.directory.backendState() == .connected)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    #expect(world.mappedPageCount > 0)

    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.directory.backendState() == .closed)
    #expect(world.mappedPageCount == 0)
    #expect(throws: BlockFrontendError.self) { try frontend.submit(BlockFrontRequest(.flush)) }

    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 88)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func theToolstackTakesTheDiskAway() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    let frontend = try world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    try world.detach()
    // Whoever waits for I/O hears of it.
    let error = #expect(throws: BlockFrontendError.self) {
      try frontend.wait(timeoutMilliseconds: worldMilliseconds)
    }
    guard case .directory(.backendClosed) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func nobodyThereIsToldInTime() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    try world.stop()
    let second: UInt32 = FrontendWorld.device + 16
    try world.addDisk(FrontendWorld.guest, second)
    let frontend = try world.frontend(FrontendWorld.guest, second)
    let error = #expect(throws: BlockFrontendError.self) { try frontend.connect(timeoutMilliseconds: 50) }
    guard case .directory(.timedOut(let path, "InitWait", _, 50, _)) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(path == world.backendPath(FrontendWorld.guest, second) + "/state")
  }

  /// Keys that a frontend gets wrong, and a word that the backend's reason has to have.
  static let badKeys: [(keys: [String: String?], word: String)] = [
    (["protocol": "vax-abi"], "protocol"),
    (["protocol": ""], "protocol"),
    (["ring-ref": nil], "ring-ref"),
    (["ring-ref": "-1"], "ring-ref"),
    (["ring-ref": "4294967296"], "ring-ref"),
    (["ring-ref": "12 34"], "ring-ref"),
    (["ring-ref": ""], "ring-ref"),
    // A grant that does not exist.
    (["ring-ref": "65000"], ""),
    (["event-channel": nil], "event-channel"),
    (["event-channel": "0"], "event-channel"),
    (["event-channel": "4000"], ""),
    (["event-channel": "x"], "event-channel"),
    (["ring-page-order": "5"], "ring-page-order"),
    (["ring-page-order": "18446744073709551615"], "ring-page-order"),
    (["ring-page-order": "64"], "ring-page-order"),
    (["ring-page-order": "1"], "ring-ref"),
    (["multi-queue-num-queues": "0"], "multi-queue-num-queues"),
    (["multi-queue-num-queues": "2"], "multi-queue-num-queues"),
    (["multi-queue-num-queues": "many"], "multi-queue-num-queues"),
    (["feature-persistent": "2"], "feature-persistent"),
  ]

  @Test func badKeysAreRefusedWithAReasonAndGoodOnesTakenAfterwards() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    for (keys, word) in Self.badKeys {
      var options = BlockFrontendOptions()
      options.keys = keys
      let name = try #require(keys.keys.first)
      let frontend = try world.frontend(FrontendWorld.guest, FrontendWorld.device, options)
      if case .some(.none) = keys[name] {
        try frontend.directory.store.remove("\(frontend.directory.path)/\(name)")
      }
      let error = #expect(throws: BlockFrontendError.self, "\(keys)") {
        try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      }
      guard case .directory(.backendClosed) = error else {
        Issue.record("\(keys): \(String(describing: error))")
        return
      }
      let reason = try world.errorText()
      #expect(reason.map { word.isEmpty || $0.contains(word) } == true, "\(keys): \(reason ?? "no reason")")
      #expect(world.mappedPageCount == 0, "\(keys)")
      try frontend.directory.store.remove("\(frontend.directory.path)/\(name)")
      frontend.options.keys = [:]
      try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
      #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 1)) == .okay, "\(keys)")
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
    }
    try world.stop()
  }

  @Test func aMissingKeyMeansItsDefault() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    // A 32-bit frontend need not name its layout.
    var options = BlockFrontendOptions()
    options.abi = .x86_32
    options.keys = ["protocol": nil, "feature-persistent": nil]
    let frontend = try world.connected(options)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
