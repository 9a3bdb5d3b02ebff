import Blkback
import Foundation
import Frontends
import Loopback
import RingKit
import Testing

/// A guest that writes whatever it likes into its ring, and a neighbour on the same data thread that must not
/// notice.
final class HostileGuest {
  let world: FrontendWorld
  let frontend: BlockFrontend
  let queue: BlockFrontendQueue
  let abi: BlockABI
  /// Pages that the backend may read and write.
  let pages: SharedPages
  let sharing: any GrantSharing
  /// Sectors from here on may be written; before, nothing may change.
  static let scratchSector: UInt64 = 1024
  static let sectorCount: UInt64 = 2048

  private let image: String
  private let neighbour: BlockFrontend
  private let neighbourImage: String
  private let contents: Data
  private var lastID: UInt64 = 0xFEDC_BA98_0000_0000

  /// Connects both guests to disks of noise.
  init(
    abi: BlockABI = .x86_64, persistent: Bool = true, writable: Bool = true,
    nodes: [String: String?] = [:],
    _ change: (inout VbdOffer) -> Void = { _ in }
  ) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 3
    offer.barrier = true
    offer.discard = true
    offer.indirectSegments = 256
    change(&offer)
    world = try FrontendWorld(offer: offer)
    let other = DomainID(rawValue: 8)
    image = try world.addDisk(byteCount: 1 << 20, writable: writable, nodes: nodes)
    neighbourImage = try world.addDisk(other, FrontendWorld.device, byteCount: 1 << 20)
    var random = SeededGenerator(seed: 1)
    contents = Data((0..<1 << 20).map { _ in UInt8(truncatingIfNeeded: random.next()) })
    for path in [image, neighbourImage] {
      let file = try FileHandle(forWritingTo: URL(filePath: path))
      try file.write(contentsOf: contents)
      try file.close()
    }
    var options = BlockFrontendOptions()
    options.abi = abi
    options.persistentGrants = persistent
    options.maximumIndirectSegments = 256
    options.allowsMisalignedRequests = true
    options.queueCount = 3
    self.abi = abi
    frontend = try world.connected(options)
    queue = try frontend.queue()
    neighbour = try world.frontend(other)
    try neighbour.connect(timeoutMilliseconds: worldMilliseconds)
    sharing = try world.host.hypervisor(for: FrontendWorld.guest).openGrantSharing()
    pages = try sharing.share(pageCount: 64, with: FrontendWorld.backend, access: .readWrite)
  }

  /// An id that was not used before.
  func newID() -> UInt64 {
    lastID += 1
    return lastID
  }

  /// Page `index` as a segment.
  func segment(_ index: Int, first: UInt8 = 0, last: UInt8 = 7) -> BlockSegment {
    BlockSegment(reference: pages.references[index], firstSector: first, lastSector: last)
  }

  /// Writes descriptors into a page, from its begin.
  func describe(_ segments: [BlockSegment], in shared: SharedPages, page: Int) {
    shared.pages.setWords(segments.map(\.word), at: page * 4096)
  }

  /// An indirect request with descriptors in page 63 unless `descriptors` says where they are.
  func indirect(
    _ operation: Blkback.BlockOperation, sector: UInt64 = 0, _ segments: [BlockSegment],
    count: UInt16? = nil, descriptors: GrantReference? = nil, others: GrantReference? = nil
  ) -> SlotCopy {
    describe(segments, in: pages, page: 63)
    let request = BlockRequest(
      indirect: operation, segmentCount: count ?? UInt16(segments.count), id: newID(), sectorNumber: sector,
      abi: abi)
    var slot = request.encode()
    request.setIndirectReference(descriptors ?? pages.references[63], at: 0, in: &slot)
    for index in 1..<maximumIndirectPages where others != nil {
      request.setIndirectReference(others ?? pages.references[63], at: index, in: &slot)
    }
    return slot
  }

  /// An indirect read of the disk's begin.
  func indirect(
    _ segments: [BlockSegment], descriptors: GrantReference? = nil, others: GrantReference? = nil
  ) -> SlotCopy {
    indirect(.read, segments, descriptors: descriptors, others: others)
  }

  /// Sends a slot and takes the one answer it gets.
  func send(_ slot: SlotCopy) throws -> BlockResponse {
    guard queue.submitRaw(slot) else { throw WorldFailure("no room for a slot") }
    try frontend.push()
    let completion = try frontend.answer()
    #expect(completion.handle == nil)
    return completion.response
  }

  /// Sends a slot, which has to be answered in one of these ways.
  func expect(
    _ statuses: BlockStatus..., of slot: SlotCopy, _ what: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let response = try send(slot)
    let request = BlockRequest(slot, abi: abi)
    #expect(response.id == request.id, "\(what)", sourceLocation: sourceLocation)
    #expect(response.operation == request.responseOperation, "\(what)", sourceLocation: sourceLocation)
    #expect(
      statuses.contains(response.status), "\(what): \(response.status)", sourceLocation: sourceLocation)
  }

  /// Pushes what was submitted, and expects as many good answers.
  func expectOkay(_ count: Int) throws {
    try frontend.push()
    for _ in 0..<count {
      let completion = try frontend.answer()
      #expect(completion.response.status == .okay, "\(completion.response.operation)")
      frontend.release(try #require(completion.handle))
    }
  }

  /// The disk serves on, everything was answered once, and nothing changed that must not.
  func finish(ownContentsStay: Bool = true, sourceLocation: SourceLocation = #_sourceLocation) throws {
    for _ in 0..<3 {
      #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 88)) == .okay)
    }
    #expect(frontend.outstanding == 0, sourceLocation: sourceLocation)
    #expect(try frontend.nextCompletion() == nil, sourceLocation: sourceLocation)
    let copy = world.path("neighbour")
    try ImageTransfer().copyOut(from: neighbour, byteCount: 1 << 20, path: copy)
    #expect(
      try Data(contentsOf: URL(filePath: copy)) == contents, "the neighbour's disk changed",
      sourceLocation: sourceLocation)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try neighbour.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0, sourceLocation: sourceLocation)
    try world.stop()
    #expect(
      try Data(contentsOf: URL(filePath: neighbourImage)) == contents, "the neighbour's image changed",
      sourceLocation: sourceLocation)
    guard ownContentsStay else { return }
    let kept = Int(Self.scratchSector) * 512
    #expect(
      try Data(contentsOf: URL(filePath: image)).prefix(kept) == contents.prefix(kept),
      "a refused request changed the disk", sourceLocation: sourceLocation)
  }
}
