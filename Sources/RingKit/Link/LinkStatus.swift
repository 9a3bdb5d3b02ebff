/// What the kernel says of a network interface (rtnetlink(7), RTM_NEWLINK).
public struct LinkStatus: Equatable, Sendable {
  /// What is known of a TAP or TUN device beside (linux/if_link.h, IFLA_TUN_*).
  public struct TunDetails: Equatable, Sendable {
    /// It carries Ethernet frames: a TAP.
    public var isTap = false
    /// It stays without a program that has it open.
    public var isPersistent = false
    /// Programs can open several queues of it.
    public var isMultiQueue = false
    /// Queues that programs have open, put aside or not; nil unless it can have several.
    public var queueCount: Int?
  }

  /// Names the interface in its network namespace for as long as it exists; 1 or more.
  public var index: Int32
  /// Its name now, 1...15 bytes; scripts and administrators change it.
  public var name = ""
  /// Text that its maker gave it, up to 255 bytes; empty for none.
  public var alias = ""
  /// Set up by the administrator (IFF_UP).
  public var isUp: Bool
  /// Its peer can be reached, were it up (IFLA_CARRIER): what TUNSETCARRIER sets of a TAP.
  public var hasCarrier = false
  /// Bytes of payload in a frame, at most.
  public var mtu: UInt32 = 0
  /// Packets that its transmit queue holds.
  public var transmitQueueLength: UInt32 = 0
  /// Its hardware address; six bytes of an Ethernet interface.
  public var address: [UInt8] = []
  /// The bridge or bond it is a port of.
  public var masterIndex: Int32?
  /// Its kind ("bridge", "tun", "veth"); empty of hardware.
  public var kind = ""
  /// Of a TAP or TUN device.
  public var tun: TunDetails?

  /// Parses a message's payload; nil when it is malformed.
  init?(_ payload: NetlinkBytes) {
    guard let index = payload.number(Int32.self, at: 4), index > 0,
      let flags = payload.number(UInt32.self, at: 8),
      let attributes = payload.slice(at: Netlink.linkByteCount, count: payload.count - Netlink.linkByteCount)
    else { return nil }
    self.index = index
    isUp = flags & 1 != 0
    let isWhole = attributes.forEachAttribute { type, value in
      switch type {
      case 1: address = Array(value.bytes)
      case 3: name = value.text
      case 4: mtu = value.number(UInt32.self, at: 0) ?? 0
      case 10: masterIndex = value.number(Int32.self, at: 0)
      case 13: transmitQueueLength = value.number(UInt32.self, at: 0) ?? 0
      case 18: return readDetails(value)
      case 20: alias = value.text
      case 33: hasCarrier = value.number(UInt8.self, at: 0) == 1
      default: break
      }
      return true
    }
    guard isWhole, !name.isEmpty else { return nil }
  }

  /// IFLA_LINKINFO: the kind, and for a TUN or TAP its details.
  private mutating func readDetails(_ value: NetlinkBytes) -> Bool {
    var data: NetlinkBytes?
    let isWhole = value.forEachAttribute { type, value in
      if type == 1 { kind = value.text }
      if type == 2 { data = value }
      return true
    }
    guard isWhole else { return false }
    guard kind == "tun", let data else { return true }
    var details = TunDetails()
    var queueCount = 0
    let isWholeInside = data.forEachAttribute { type, value in
      let flag = value.number(UInt8.self, at: 0) ?? 0
      switch type {
      case 3: details.isTap = flag == 2
      case 6: details.isPersistent = flag != 0
      case 7: details.isMultiQueue = flag != 0
      case 8, 9: queueCount += Int(clamping: value.number(UInt32.self, at: 0) ?? 0)
      default: break
      }
      return true
    }
    if details.isMultiQueue { details.queueCount = queueCount }
    tun = details
    return isWholeInside
  }
}
