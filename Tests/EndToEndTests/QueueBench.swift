import RingKit
import Testing

@testable import Blkback
@testable import Frontends

/// One frontend's queue and the backend's end of its ring, in one process.
struct QueueBench: ~Copyable {
  let queue: BlockFrontendQueue
  var back: BackRing
  let abi: BlockABI
  /// The guest's data and descriptor pages, unless it shares each as it needs it.
  let data: SharedPages?

  init(
    abi: BlockABI = .x86_64, dataPages: Int = 40, sharing: PrivateSharing? = nil, persistent: Bool = true,
    directSegments: Int = 11, allowsMisaligned: Bool = false, limits: RequestLimits = .init()
  ) throws {
    var options = BlockFrontendOptions()
    options.abi = abi
    options.firstRingIndex = 0xFFFF_FFF0
    options.persistentGrants = persistent
    options.directSegments = directSegments
    options.allowsMisalignedRequests = allowsMisaligned
    let ring = try sharedPages(1)
    let data = sharing == nil ? try sharedPages(dataPages) : nil
    let stride = limits.pagesOfRequest
    let pages =
      if let sharing {
        RequestPages(sharing: sharing, with: DomainID(rawValue: 3), capacity: 32, stride: stride)
      } else {
        RequestPages(pool: GrantedPagePool(try #require(data)), capacity: 32, stride: stride)
      }
    let queue = BlockFrontendQueue(
      number: 0, ringPages: ring, port: Port(rawValue: 1), device: 51712, options: options)
    try queue.begin(limits) { pages }
    let back = try BackRing(attaching: ring.pages, slotByteCount: abi.requestByteCount)
    self.abi = abi
    self.queue = queue
    self.back = back
    self.data = data
  }

  /// Takes the next slot as the backend does.
  mutating func take() throws -> SlotCopy {
    _ = queue.push()
    #expect(try back.refresh() > 0)
    var slot = SlotCopy()
    let isTaken = back.take(into: &slot)
    #expect(isTaken)
    return slot
  }

  /// Places a request and takes its slot.
  mutating func slot(_ request: BlockFrontRequest) throws -> SlotCopy {
    queue.submit(try #require(try queue.prepare(request)))
    return try take()
  }

  /// Segment `index` as it stands in the descriptor pages that a slot names.
  func segment(_ index: Int, _ request: BlockRequest, _ slot: SlotCopy) throws -> BlockSegment {
    let reference = request.indirectReference(at: index / 512, in: slot)
    let data = try #require(data)
    let page = try #require(data.references.firstIndex(of: reference))
    return BlockSegment(word: data.pages.copyWords(at: page * 4096 + index % 512 * 8, count: 1)[0])
  }

  mutating func answer(_ response: BlockResponse) {
    back.respond(response.encode(), byteCount: abi.responseByteCount)
    _ = back.publish()
  }
}
