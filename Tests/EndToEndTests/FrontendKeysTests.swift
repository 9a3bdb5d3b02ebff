import RingKit
import Testing

@testable import Blkback
@testable import Frontends

/// The nodes of a frontend, as Linux writes them (xen-blkfront.c, talk_to_blkback and write_per_ring_nodes).
@Suite struct FrontendKeysTests {
  private func queue(_ references: UInt32..., port: UInt32) -> RingKeys.Queue {
    RingKeys.Queue(references: references.map(GrantReference.init(rawValue:)), port: Port(rawValue: port))
  }

  private func written(_ queues: [RingKeys.Queue], _ options: BlockFrontendOptions = .init()) -> [String] {
    RingKeys.nodes(queues: queues, options: options).map { "\($0.name)=\($0.value)" }
  }

  @Test func onePageStandsAtTheTopWithoutOrder() {
    #expect(
      written([queue(8, port: 5)])
        == ["ring-ref=8", "event-channel=5", "protocol=x86_64-abi", "feature-persistent=1"])
  }

  @Test func morePagesAreNumbered() {
    var options = BlockFrontendOptions()
    options.abi = .x86_32
    options.persistentGrants = false
    #expect(
      written([queue(8, 9, 10, 11, port: 5)], options)
        == [
          "ring-page-order=2", "ring-ref0=8", "ring-ref1=9", "ring-ref2=10", "ring-ref3=11",
          "event-channel=5",
          "protocol=x86_32-abi", "feature-persistent=0",
        ])
  }

  @Test func anOrderOfZeroCanBeWritten() {
    var options = BlockFrontendOptions()
    options.writesZeroRingPageOrder = true
    #expect(
      written([queue(8, port: 5)], options)
        == [
          "ring-page-order=0", "ring-ref0=8", "event-channel=5", "protocol=x86_64-abi",
          "feature-persistent=1",
        ])
  }

  @Test func queuesHaveDirectoriesAndTheOrderIsCommon() {
    #expect(
      written([queue(8, 9, port: 5), queue(10, 11, port: 6)])
        == [
          "multi-queue-num-queues=2", "ring-page-order=1", "queue-0/ring-ref0=8", "queue-0/ring-ref1=9",
          "queue-0/event-channel=5", "queue-1/ring-ref0=10", "queue-1/ring-ref1=11",
          "queue-1/event-channel=6",
          "protocol=x86_64-abi", "feature-persistent=1",
        ])
  }

  @Test func keysCanBeOverriddenLeftOutAndAdded() {
    var options = BlockFrontendOptions()
    options.keys = ["ring-ref": "junk", "event-channel": nil, "zebra": "1", "absent": nil]
    #expect(
      written([queue(8, port: 5)], options)
        == ["ring-ref=junk", "protocol=x86_64-abi", "feature-persistent=1", "zebra=1"])
  }
}
