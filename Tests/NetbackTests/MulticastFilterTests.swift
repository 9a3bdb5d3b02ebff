import Netback
import Testing

/// The frontend's list of multicast addresses (net.md, rules 15 and 34).
struct MulticastFilterTests {
  static func address(_ number: Int) -> EthernetAddress {
    EthernetAddress(rawValue: 0x3333_0000_0000 | UInt64(number))
  }
  static let unicast = EthernetAddress(rawValue: 0x0016_3E01_0203)

  @Test func trap34_onlyWhatIsListedPassesAnActiveFilter() {
    var filter = MulticastFilter()
    #expect(filter.accepts(Self.address(1)) && filter.accepts(.broadcast) && filter.accepts(Self.unicast))
    let isAdded = filter.change(Self.address(1), isAdded: true)
    #expect(isAdded && filter.accepts(Self.address(2)), "the list counts only once the filter is active")
    filter.isActive = true
    #expect(filter.accepts(Self.address(1)) && !filter.accepts(Self.address(2)))
    #expect(filter.accepts(.broadcast) && filter.accepts(Self.unicast))
    filter.reset()
    #expect(filter.count == 0 && filter.accepts(Self.address(2)))
  }

  @Test func trap15_theListHas64Places() {
    var filter = MulticastFilter()
    filter.isActive = true
    for number in 0..<64 {
      for _ in 0..<2 {
        let isThere = filter.change(Self.address(number), isAdded: true)
        #expect(isThere && filter.count == number + 1)
      }
    }
    let isOneTooMany = !filter.change(Self.address(64), isAdded: true)
    #expect(isOneTooMany && !filter.accepts(Self.address(64)))
    // Those there may be named again, and what passes anyhow needs no place.
    for address in [Self.address(5), .broadcast, Self.unicast] {
      let isDone = filter.change(address, isAdded: true)
      #expect(isDone && filter.count == 64)
    }
    // Nothing happens when what is unknown goes.
    let isUnknownFine = filter.change(Self.address(64), isAdded: false)
    let isKnownFine = filter.change(Self.address(5), isAdded: false)
    #expect(isUnknownFine && isKnownFine && filter.count == 63 && !filter.accepts(Self.address(5)))
    let fits = filter.change(Self.address(64), isAdded: true)
    #expect(fits && filter.accepts(Self.address(64)) && filter.accepts(Self.address(63)))
  }
}
