import Blkback
import Testing

@Suite struct VirtualDeviceTests {
  /// Names and numbers of docs/man/xen-vbd-interface.7 and libxl.
  static let known: [(name: String, number: UInt32)] = [
    ("xvda", 51712), ("xvda1", 51713), ("xvdb", 51728), ("xvdp15", 51967), ("xvdq", 268_439_552),
    ("xvda16", 268_435_472), ("xvdaa", 268_442_112), ("hda", 768), ("hdb", 832), ("hdc1", 5633),
    ("sda", 2048),
    ("sdb3", 2067),
  ]

  @Test(arguments: known.indices)
  func namesAndNumbersAgree(index: Int) {
    let (name, number) = Self.known[index]
    #expect(VirtualDevice(name)?.number == number)
    #expect(VirtualDevice(number: number).description == name)
    #expect(VirtualDevice(String(number))?.number == number)
  }

  @Test func otherSpellings() {
    #expect(VirtualDevice("d0")?.number == 51712)
    #expect(VirtualDevice("d1p2")?.number == 51730)
    #expect(VirtualDevice("0xca00")?.number == 51712)
    #expect(VirtualDevice(number: 1).description == "1")
  }

  @Test(arguments: [
    "", "xvd", "xvda-1", "xvdA", "foo", "hde", "sdq", "hda64", "sda16", "-1", "+1", "4294967296", "536870912",
    "0x", "0xzz",
    "xvda999", "xvda99999999999", "d", "dp1", "d0p", "xvdzzzzz", "d99999999999", " xvda", "xvda ", "xvdé",
    "٣",
  ])
  func whatIsNoDiskIsRefused(text: String) {
    #expect(VirtualDevice(text) == nil)
  }

  @Test func everyNumberOfTheOldFormComesBack() {
    for number in UInt32(51712)..<51968 {
      let device = VirtualDevice(number: number)
      #expect(VirtualDevice(device.description) == device)
    }
  }
}
