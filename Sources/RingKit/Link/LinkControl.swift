import Glibc

/// Asks the kernel for network interfaces and changes them, by index: what a script has renamed or moved into a
/// bridge meanwhile is found all the same.
///
/// It works in the network namespace of the thread that made it, whichever thread uses it. Every call waits
/// for the kernel's lock on interfaces, so data threads have no business here.
public final class LinkControl {
  private let socket: NetlinkSocket
  private var sequence: UInt32 = 0

  /// Opens a socket in the calling thread's network namespace.
  public init() throws(LinkError) {
    do throws(SystemError) {
      socket = try NetlinkSocket(groups: 0, waits: true)
    } catch {
      throw LinkError(link: "rtnetlink", reason: .system(error))
    }
  }

  /// What the kernel says of the interface with this index; throws `.gone` when there is none.
  public func status(index: Int32) throws(LinkError) -> LinkStatus {
    let request = message(Netlink.getLink, flags: 0, index: index)
    guard let status = try ask(request, link: "interface \(index)").first else {
      throw LinkError(link: "interface \(index)", reason: .badAnswer)
    }
    return status
  }

  /// What the kernel says of the interface with this name now; nil when there is none.
  public func status(name: String) throws(LinkError) -> LinkStatus? {
    guard TapName.isValid(name) else { return nil }
    var request = message(Netlink.getLink, flags: 0, index: 0)
    request.add(3, Array(name.utf8) + [0])
    do throws(LinkError) {
      return try ask(request, link: name).first
    } catch  where error.reason == .gone {
      return nil
    }
  }

  /// All interfaces of the namespace.
  public func all() throws(LinkError) -> [LinkStatus] {
    try ask(
      message(Netlink.getLink, flags: Netlink.dump, index: 0), link: "interfaces", isList: true)
  }

  /// Gives the interface a text that outlives this process, up to 255 bytes; an empty one takes it away.
  public func setAlias(_ alias: String, of index: Int32) throws(LinkError) {
    // IFALIASZ counts the zero at the end (linux/if.h).
    guard alias.utf8.count <= 255 else {
      throw LinkError(link: "interface \(index)", reason: .aliasTooLong)
    }
    try change(index) { $0.add(20, Array(alias.utf8)) }
  }

  /// Sets the largest payload of a frame, in bytes; the kernel refuses what the interface cannot do (of a TAP,
  /// 68...65521).
  public func setMTU(_ mtu: UInt32, of index: Int32) throws(LinkError) {
    try change(index) { $0.add(4, mtu) }
  }

  /// Sets how many packets the interface's transmit queue holds.
  public func setTransmitQueueLength(_ packetCount: UInt32, of index: Int32) throws(LinkError) {
    try change(index) { $0.add(13, packetCount) }
  }

  /// Sets the hardware address: six bytes of an Ethernet interface.
  public func setAddress(_ address: [UInt8], of index: Int32) throws(LinkError) {
    try change(index) { $0.add(1, address) }
  }

  /// Gives the interface another name.
  public func rename(_ index: Int32, to name: String) throws(LinkError) {
    guard TapName.isValid(name) else { throw LinkError(link: name, reason: .badName) }
    try change(index) { $0.add(3, Array(name.utf8) + [0]) }
  }

  /// Sets the interface up or down.
  public func setUp(_ isUp: Bool, of index: Int32) throws(LinkError) {
    sequence &+= 1
    let request = NetlinkRequest(
      type: Netlink.newLink, flags: Netlink.request | Netlink.acknowledge, sequence: sequence, index: index,
      interfaceFlags: isUp ? 1 : 0, changed: 1)
    _ = try ask(request, link: "interface \(index)")
  }

  /// Deletes the interface, whoever has it open; throws `.gone` when there is none.
  public func delete(_ index: Int32) throws(LinkError) {
    _ = try ask(
      message(Netlink.deleteLink, flags: Netlink.acknowledge, index: index), link: "interface \(index)")
  }

  private func change(_ index: Int32, _ fill: (inout NetlinkRequest) -> Void) throws(LinkError) {
    var request = message(Netlink.newLink, flags: Netlink.acknowledge, index: index)
    fill(&request)
    _ = try ask(request, link: "interface \(index)")
  }

  private func message(_ type: UInt16, flags: UInt16, index: Int32) -> NetlinkRequest {
    sequence &+= 1
    var request = NetlinkRequest(
      type: type, flags: Netlink.request | flags, sequence: sequence, index: index)
    // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS: the statistics are most of an answer.
    if type == Netlink.getLink { request.add(29, UInt32(1 << 3)) }
    return request
  }

  /// Sends a request, and gives the links of the answer, which ends with a link, a list's end, or a number.
  private func ask(
    _ request: NetlinkRequest, link: String, isList: Bool = false
  ) throws(LinkError) -> [LinkStatus] {
    var links: [LinkStatus] = []
    do throws(SystemError) {
      try socket.send(request.bytes)
      while true {
        guard case .bytes(let bytes) = try socket.receive() else {
          throw SystemError(call: "recv(AF_NETLINK)", errno: EBADMSG)
        }
        var end: Int32?
        let isWhole = NetlinkBytes(bytes: bytes[...]).forEachMessage { message in
          // Answers to a question that failed half-way are not for this one.
          guard message.sequence == sequence else { return true }
          switch message.type {
          case Netlink.newLink:
            guard let status = LinkStatus(message.payload) else { return false }
            links.append(status)
            if !isList { end = 0 }
          case Netlink.error, Netlink.done:
            end = message.payload.number(Int32.self, at: 0) ?? 0
          default: break
          }
          return true
        }
        guard isWhole else { throw SystemError(call: "recv(AF_NETLINK)", errno: EBADMSG) }
        guard let end else { continue }
        guard end == 0 else { throw SystemError(call: "rtnetlink", errno: -max(end, -4095)) }
        return links
      }
    } catch {
      if error.errno == EBADMSG { throw LinkError(link: link, reason: .badAnswer) }
      throw LinkError(link: link, call: error.call, errno: error.errno)
    }
  }
}
