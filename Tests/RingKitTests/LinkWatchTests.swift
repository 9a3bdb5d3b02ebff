import CUring
import Glibc
import Testing

@testable import RingKit

/// News of interfaces, and what the kernel's messages are taken for.
@Suite struct LinkWatchTests {
  /// Takes news until some of the interface comes.
  static func news(_ watch: LinkWatch, of index: Int32) throws -> LinkChanges {
    var poll = DescriptorPoll()
    poll.set([(watch.descriptor, false)])
    while true {
      try #require(try poll.wait(timeoutMilliseconds: 10_000) == [watch.descriptor])
      let changes = try watch.changes()
      if changes.indexes.contains(index) { return changes }
    }
  }

  @Test(.enabled(if: tapObstacle == nil, "\(tapObstacle ?? "")"))
  func everyChangeOfAnInterfaceIsTold() throws {
    try inNetwork { network in
      let watch = try LinkWatch()
      #expect(try watch.changes().isEmpty)
      let device = try TapDevice(creating: "vif1.0")
      _ = try Self.news(watch, of: device.index)
      try network.addBridge("xenbr0")
      for change in ["name guest0", "mtu 1400", "master xenbr0", "up", "alias text", "nomaster", "down"] {
        while try !watch.changes().isEmpty {}
        try network.ip("link set dev \(change == "name guest0" ? "vif1.0" : "guest0") \(change)")
        let news = try Self.news(watch, of: device.index)
        #expect(!news.mustLookAtAll && Set(news.indexes).count == news.indexes.count, "\(change)")
      }
      while try !watch.changes().isEmpty {}
      try device.delete()
      _ = try Self.news(watch, of: device.index)
    }
  }

  @Test(.enabled(if: tapObstacle == nil, "\(tapObstacle ?? "")"))
  func lostNewsMakeEveryInterfaceSuspect() throws {
    try inNetwork { network in
      let control = try LinkControl()
      let index = try #require(try control.status(name: "lo")?.index)
      // Of one that is down, the kernel does not tell a new alias (netdev_state_change).
      try network.setUp("lo")
      let watch = try LinkWatch()
      for number in 0..<2000 { try control.setAlias("text \(number)", of: index) }
      var (rounds, lost, told) = (0, false, false)
      while case let news = try watch.changes(), !news.isEmpty {
        rounds += 1
        lost = lost || news.mustLookAtAll
        told = told || news.indexes == [index]
      }
      #expect(lost && told && rounds > 1, "\(rounds) rounds")
      try control.setAlias("", of: index)
      #expect(try watch.changes() == LinkChanges(indexes: [index]))
    }
  }

  // MARK: Messages

  static func link(_ index: Int32, type: UInt16 = 16, _ fill: (inout NetlinkRequest) -> Void = { _ in })
    -> [UInt8]
  {
    var message = NetlinkRequest(type: type, flags: 0, sequence: 7, index: index, interfaceFlags: 1)
    fill(&message)
    return message.bytes
  }

  static func read(_ bytes: [UInt8]) -> LinkChanges {
    var changes = LinkChanges()
    LinkWatch.read(bytes, into: &changes)
    return changes
  }

  @Test func aDatagramOfSeveralMessagesIsReadToItsEnd() {
    let bytes = Self.link(3) + Self.link(4, type: 17) { $0.add(3, [0x61, 0]) } + Self.link(3) + Self.link(9)
    #expect(Self.read(bytes) == LinkChanges(indexes: [3, 4, 9]))
    // Other news are none of ours.
    #expect(Self.read(Self.link(3, type: 20)).isEmpty)
    #expect(Self.read([]).isEmpty)
  }

  @Test func aMalformedDatagramMakesEveryInterfaceSuspect() {
    let whole = Self.link(3)
    for count in 1..<whole.count {
      #expect(Self.read(Array(whole.prefix(count))) == LinkChanges(mustLookAtAll: true), "\(count) bytes")
      // What stood before is kept.
      #expect(Self.read(whole + whole.prefix(count)) == LinkChanges(indexes: [3], mustLookAtAll: true))
    }
    for length in [0, 1, 15, 33, 0xFFFF_FFFF, 0x8000_0000] as [UInt32] {
      var bytes = whole
      for place in 0..<4 { bytes[place] = UInt8(truncatingIfNeeded: length >> (place * 8)) }
      #expect(Self.read(bytes).mustLookAtAll, "length \(length)")
    }
    #expect(Self.read(Self.link(0)).mustLookAtAll)
    #expect(Self.read(Self.link(-1)).mustLookAtAll)
  }

  @Test func aLinksAttributesAreReadWithinTheirBounds() throws {
    func status(_ fill: (inout NetlinkRequest) -> Void) -> LinkStatus? {
      LinkStatus(NetlinkBytes(bytes: Self.link(5, fill)[16...]))
    }
    func nested(_ attributes: [(UInt16, [UInt8])]) -> [UInt8] {
      var request = NetlinkRequest(type: 0, flags: 0, sequence: 0, index: 0)
      for (type, value) in attributes { request.add(type, value) }
      return Array(request.bytes.dropFirst(32))
    }
    let details = nested([(3, [2]), (6, [1]), (7, [1]), (8, [4, 0, 0, 0]), (9, [2, 0, 0, 0])])
    let found = try #require(
      status {
        $0.add(3, Array("vif1.0".utf8) + [0])
        $0.add(4, 1500)
        $0.add(20, Array("text".utf8) + [0])
        $0.add(33, [1])
        // A nested attribute says so in its type (NLA_F_NESTED).
        $0.add(18 | 0x8000, nested([(1, Array("tun".utf8) + [0]), (2, details)]))
      })
    #expect(found.name == "vif1.0" && found.mtu == 1500 && found.alias == "text" && found.isUp)
    #expect(found.hasCarrier && found.tun?.queueCount == 6 && found.tun?.isPersistent == true)
    #expect(found.tun?.isTap == true)
    #expect(status { $0.add(4, 1500) } == nil, "a link without a name")
    // An attribute that goes beyond the message, or is shorter than its own header.
    for length in [0, 3, 13, 0xFFFF] as [UInt16] {
      var bytes = Self.link(5) { $0.add(3, Array("vif1.0".utf8) + [0]) }
      bytes[32] = UInt8(length & 0xFF)
      bytes[33] = UInt8(length >> 8)
      #expect(LinkStatus(NetlinkBytes(bytes: bytes[16...])) == nil, "length \(length)")
    }
    for count in 0..<16 {
      #expect(LinkStatus(NetlinkBytes(bytes: Self.link(5)[16..<(16 + count)])) == nil)
    }
    // Numbers shorter than they should be count for nothing.
    #expect(
      status {
        $0.add(3, [0x61]); $0.add(4, [1, 2])
      }?.mtu == 0)
  }
}
