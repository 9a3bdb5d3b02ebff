import Netback
import RingKit
import Testing

/// Slots against the byte offsets of netif.h, which net.md 1.1 lists.
@Suite struct WireTests {
  @Test func aTransmitSlotHasItsFieldsWhereTheHeaderPutsThem() {
    var slot = SlotCopy()
    slot.setUInt32(0x0102_0304, at: 0)
    slot.setUInt16(0x0506, at: 4)
    slot.setUInt16(0x000D, at: 6)
    slot.setUInt16(0x0708, at: 8)
    slot.setUInt16(0x090A, at: 10)
    let request = NetTxRequest(slot)
    #expect(request.reference.rawValue == 0x0102_0304)
    #expect(request.offset == 0x0506)
    #expect(request.flags == [.checksumBlank, .moreData, .extraInfo])
    #expect(request.id == 0x0708)
    #expect(request.size == 0x090A)
    #expect(NetTxRequest(request.encode()) == request)
  }

  @Test func checksumFlagsOfTheTwoDirectionsAreSwapped() {
    #expect(NetTxFlags.checksumBlank.rawValue == NetRxFlags.dataValidated.rawValue)
    #expect(NetTxFlags.dataValidated.rawValue == NetRxFlags.checksumBlank.rawValue)
  }

  @Test func extraInfosAreReadByteByByte() {
    var slot = SlotCopy()
    for (index, byte) in [UInt8(1), 1, 0xB4, 0x05, 2, 0, 0, 0].enumerated() { slot.setUInt8(byte, at: index) }
    let segmentation = NetExtraInfo(slot)
    #expect(segmentation.type == .segmentation && segmentation.hasMore)
    #expect(segmentation.segmentSize == 1460 && segmentation.segmentationType == .tcpIPv6)

    let address = EthernetAddress("01:00:5e:7f:00:fb")
    for (index, byte) in [UInt8(2), 0, 1, 0, 0x5E, 0x7F, 0, 0xFB].enumerated() {
      slot.setUInt8(byte, at: index)
    }
    let multicast = NetExtraInfo(slot)
    #expect(multicast.type == .multicastAdd && !multicast.hasMore && multicast.address == address)
    #expect(address.map { NetExtraInfo(multicast: $0, isAdded: true) } == multicast)

    for (index, byte) in [UInt8(4), 0, 3, 1, 0x78, 0x56, 0x34, 0x12].enumerated() {
      slot.setUInt8(byte, at: index)
    }
    let hash = NetHash(type: .ipv6TCP, algorithm: 1, value: 0x1234_5678)
    #expect(NetExtraInfo(slot).hash == hash)
    #expect(NetExtraInfo(hash: hash) == NetExtraInfo(slot))
    #expect(NetExtraInfo(NetExtraInfo(headroom: 256).encode()).headroom == 256)
  }

  @Test func addressesAreReadStrictly() {
    #expect(EthernetAddress("00:16:3E:01:02:0f")?.description == "00:16:3e:01:02:0f")
    for text in [
      "", "00:16:3e:01:02", "00:16:3e:01:02:03:04", "0:16:3e:01:02:03", "+0:16:3e:01:02:03", "00-16",
    ] {
      #expect(EthernetAddress(text) == nil, "\(text)")
    }
  }
}
