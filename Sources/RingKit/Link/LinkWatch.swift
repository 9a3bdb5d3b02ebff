/// Which interfaces the kernel told of.
public struct LinkChanges: Equatable, Sendable {
  /// Indexes of interfaces that changed, came or went, each once, in the order of the news.
  public var indexes: [Int32] = []
  /// News were lost: any interface may have changed.
  public var mustLookAtAll = false

  /// Whether there is something to look at.
  public var isEmpty: Bool { indexes.isEmpty && !mustLookAtAll }
}

/// Tells which interfaces change: their name, MTU, state, bridge (rtnetlink(7), RTMGRP_LINK). Of an interface
/// that is down the kernel does not tell a new alias.
///
/// It says that something changed, not what: whoever cares asks ``LinkControl`` for the state now, so that
/// news which are late or lost do no harm. It hears the network namespace of the thread that made it.
public final class LinkWatch {
  private let socket: NetlinkSocket

  /// Datagrams taken at once; more are left for the next call.
  static let datagramLimit = 64

  /// Starts listening.
  public init() throws(LinkError) {
    do throws(SystemError) {
      socket = try NetlinkSocket(groups: 1, waits: false)
    } catch {
      throw LinkError(link: "rtnetlink", reason: .system(error))
    }
  }

  /// Readable when there are changes.
  public var descriptor: Int32 { socket.descriptor }

  /// What changed since the last call; never waits. After 64 datagrams the rest is left, and the descriptor
  /// stays readable.
  public func changes() throws(LinkError) -> LinkChanges {
    var changes = LinkChanges()
    for _ in 0..<Self.datagramLimit {
      do throws(SystemError) {
        switch try socket.receive() {
        case .none: return changes
        case .overflow, .unusable: changes.mustLookAtAll = true
        case .bytes(let bytes): Self.read(bytes, into: &changes)
        }
      } catch {
        throw LinkError(link: "rtnetlink", reason: .system(error))
      }
    }
    return changes
  }

  /// Adds what a datagram tells. One that cannot be understood may have told of anything.
  static func read(_ bytes: [UInt8], into changes: inout LinkChanges) {
    let isWhole = NetlinkBytes(bytes: bytes[...]).forEachMessage { message in
      guard message.type == Netlink.newLink || message.type == Netlink.deleteLink else { return true }
      guard message.payload.count >= Netlink.linkByteCount,
        let index = message.payload.number(Int32.self, at: 4), index > 0
      else { return false }
      if !changes.indexes.contains(index) { changes.indexes.append(index) }
      return true
    }
    if !isWhole { changes.mustLookAtAll = true }
  }
}
