import Netback
import RingKit
import Testing

@testable import Frontends

/// The nodes of a network frontend, as Linux writes them (xen-netfront.c, talk_to_netback and
/// write_queue_xenstore_keys; netif.h; net.md 1.6).
@Suite struct NetFrontendKeysTests {
  private func queue(_ tx: UInt32, _ rx: UInt32, ports: UInt32...) -> NetRingKeys.Queue {
    NetRingKeys.Queue(
      transmitReference: GrantReference(rawValue: tx), receiveReference: GrantReference(rawValue: rx),
      transmitPort: Port(rawValue: ports[0]), receivePort: Port(rawValue: ports[ports.count - 1]))
  }

  private func written(
    _ queues: [NetRingKeys.Queue], control: (GrantReference, Port)? = nil,
    _ features: NetBackendFeatures = .init(), _ change: (inout NetFrontendOptions) -> Void = { _ in }
  ) -> [String] {
    var options = NetFrontendOptions()
    change(&options)
    return NetRingKeys(queues: queues, control: control).nodes(features: features, options: options)
      .map { "\($0.name)=\($0.value)" }
  }

  private let usual = [
    "request-rx-copy=1", "feature-rx-notify=1", "feature-sg=1", "feature-gso-tcpv4=1", "feature-gso-tcpv6=1",
    "feature-ipv6-csum-offload=1",
  ]

  @Test func oneQueueStandsAtTheTop() {
    #expect(
      written([queue(8, 9, ports: 5)]) == ["tx-ring-ref=8", "rx-ring-ref=9", "event-channel=5"] + usual)
    #expect(
      written([queue(8, 9, ports: 5, 6)])
        == ["tx-ring-ref=8", "rx-ring-ref=9", "event-channel-tx=5", "event-channel-rx=6"] + usual)
  }

  @Test func aBackendThatCountsQueuesIsToldTheirNumber() {
    var features = NetBackendFeatures()
    features.maximumQueues = 4
    #expect(
      written([queue(8, 9, ports: 5)], features)
        == ["multi-queue-num-queues=1", "tx-ring-ref=8", "rx-ring-ref=9", "event-channel=5"] + usual)
  }

  /// The example of netif.h, and one with an event channel a queue.
  @Test func queuesHaveDirectories() {
    var features = NetBackendFeatures()
    features.maximumQueues = 2
    #expect(
      written([queue(8, 9, ports: 5, 6), queue(10, 11, ports: 7, 8)], features)
        == [
          "multi-queue-num-queues=2", "queue-0/tx-ring-ref=8", "queue-0/rx-ring-ref=9",
          "queue-0/event-channel-tx=5", "queue-0/event-channel-rx=6", "queue-1/tx-ring-ref=10",
          "queue-1/rx-ring-ref=11", "queue-1/event-channel-tx=7", "queue-1/event-channel-rx=8",
        ] + usual)
    #expect(
      written([queue(8, 9, ports: 5), queue(10, 11, ports: 7)], features)
        == [
          "multi-queue-num-queues=2", "queue-0/tx-ring-ref=8", "queue-0/rx-ring-ref=9",
          "queue-0/event-channel=5", "queue-1/tx-ring-ref=10", "queue-1/rx-ring-ref=11",
          "queue-1/event-channel=7",
        ] + usual)
  }

  @Test func aControlRingHasItsKeys() {
    #expect(
      written([queue(8, 9, ports: 5)], control: (GrantReference(rawValue: 30), Port(rawValue: 31)))
        == [
          "tx-ring-ref=8", "rx-ring-ref=9", "event-channel=5", "ctrl-ring-ref=30", "event-channel-ctrl=31",
        ] + usual)
  }

  @Test func onlyWhatTheBackendOffersIsAskedFor() {
    var features = NetBackendFeatures()
    features.headroom = true
    features.multicastControl = true
    #expect(
      written([queue(8, 9, ports: 5)], features)
        == ["xdp-headroom=0", "tx-ring-ref=8", "rx-ring-ref=9", "event-channel=5"] + usual
        + ["request-multicast-control=0"])
    #expect(
      written([queue(8, 9, ports: 5)], features) {
        $0.headroomByteCount = 256
        $0.requestsMulticastControl = true
      } == ["xdp-headroom=256", "tx-ring-ref=8", "rx-ring-ref=9", "event-channel=5"] + usual
        + ["request-multicast-control=1"])
    #expect(
      written([queue(8, 9, ports: 5)]) {
        $0.headroomByteCount = 256
        $0.requestsMulticastControl = true
      } == ["tx-ring-ref=8", "rx-ring-ref=9", "event-channel=5"] + usual)
  }

  /// Every set of offloads: the checksums of IPv4 are on unless a node says otherwise, all others off.
  @Test func everySetOfOffloadsIsWritten() {
    let names: [(NetOffloads, String)] = [
      (.scatterGather, "feature-sg=1"), (.segmentationIPv4, "feature-gso-tcpv4=1"),
      (.segmentationIPv6, "feature-gso-tcpv6=1"), (.checksumIPv6, "feature-ipv6-csum-offload=1"),
    ]
    for bits in UInt8(0)..<32 {
      let offloads = NetOffloads(rawValue: bits)
      let nodes = written([queue(8, 9, ports: 5)]) {
        $0.offloads = offloads
        $0.notifiesOnPosting = bits % 2 == 0
      }
      for (offload, node) in names { #expect(nodes.contains(node) == offloads.contains(offload)) }
      #expect(nodes.contains("feature-no-csum-offload=1") == !offloads.contains(.checksumIPv4))
      #expect(nodes.contains("feature-rx-notify=1") == (bits % 2 == 0))
      #expect(nodes.contains("request-rx-copy=1"))
    }
  }

  @Test func keysCanBeOverriddenLeftOutAndAdded() {
    let nodes = written([queue(8, 9, ports: 5)]) {
      $0.keys = ["tx-ring-ref": "junk", "event-channel": nil, "zebra": "1", "absent": nil]
    }
    #expect(nodes == ["tx-ring-ref=junk", "rx-ring-ref=9"] + usual + ["zebra=1"])
  }

  // MARK: The backend's offer

  /// A directory of nodes without a store.
  private struct Nodes: StoreAccess {
    var values: [String: String]
    func read(_ path: String) throws(StoreError) -> String? { values[path] }
    func write(_ path: String, _ value: String) throws(StoreError) {}
    func makeDirectory(_ path: String) throws(StoreError) {}
    func remove(_ path: String) throws(StoreError) {}
    func list(_ path: String) throws(StoreError) -> [String]? { nil }
    func permissions(of path: String) throws(StoreError) -> [StorePermission]? { nil }
    func setPermissions(_ permissions: [StorePermission], of path: String) throws(StoreError) {}
    func exists(_ path: String) throws(StoreError) -> Bool { values[path] != nil }
  }

  private func features(_ nodes: [String: String]) throws -> NetBackendFeatures {
    let paths = Dictionary(uniqueKeysWithValues: nodes.map { ("/b/\($0.key)", $0.value) })
    return try NetBackendFeatures.read(from: Nodes(values: paths), backendPath: "/b")
  }

  @Test func anAbsentOfferHasTheDefaultsOfTheHeader() throws {
    var expected = NetBackendFeatures()
    expected.offloads = .checksumIPv4
    #expect(try features([:]) == expected)
  }

  @Test func everyOfferIsRead() throws {
    let all = try features([
      "feature-rx-copy": "1", "feature-split-event-channels": "1", "multi-queue-max-queues": "8",
      "feature-sg": "1", "feature-gso-tcpv4": "1", "feature-gso-tcpv6": "1", "feature-no-csum-offload": "0",
      "feature-ipv6-csum-offload": "1", "feature-multicast-control": "1",
      "feature-dynamic-multicast-control": "1", "feature-xdp-headroom": "1", "feature-ctrl-ring": "1",
    ])
    #expect(all.receiveCopy && all.splitEventChannels && all.maximumQueues == 8 && all.offloads == .all)
    #expect(all.multicastControl && all.dynamicMulticastControl && all.headroom && all.controlRing)
    let one = try features(["feature-no-csum-offload": "1", "feature-gso-tcpv6": "1"])
    #expect(one.offloads == .segmentationIPv6)
    #expect(throws: StoreError.self) { try features(["feature-sg": "yes"]) }
    #expect(throws: StoreError.self) { try features(["multi-queue-max-queues": "0"]) }
  }
}
