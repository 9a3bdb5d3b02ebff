import Glibc
public import RingKit

/// Sharing our own pages on the loopback machine.
public final class LoopbackGrantSharing: GrantSharing {
  private let link: MachineLink
  private let presence: MachineLink

  init(link: MachineLink, presence: MachineLink) {
    self.link = link
    self.presence = presence
  }

  public func share(
    pageCount: Int, with domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> SharedPages {
    let what = "share \(pageCount) pages with domain \(domain)"
    guard let count = UInt32(exactly: pageCount), count > 0 else {
      throw GrantError(operation: what, errno: EINVAL)
    }
    let reply: PacketSocket.Packet
    do {
      reply = try link.call(.share, [count, UInt32(domain.rawValue), access == .readWrite ? 1 : 0])
    } catch {
      throw GrantError(operation: what, errno: error.errno)
    }
    guard let first = reply.words.first, let memory = reply.descriptors.first else {
      throw GrantError(operation: what, errno: EPROTO)
    }
    let byteCount = pageCount * pageByteCount
    let base: UnsafeMutableRawPointer
    do {
      unsafe base = try memory.map(byteCount: byteCount, protection: PROT_READ | PROT_WRITE)
    } catch {
      _ = try? link.call(.endShare, [first])
      throw GrantError(operation: what, errno: error.errno)
    }
    // Sound: the mapping is ours from here on. The grants end before the pages go, and the memory itself
    // lives as long as somebody has it mapped, as a granted page does in Xen.
    let pages = unsafe MappedPages(base: base, pageCount: pageCount) {
      [link, presence] base, pageCount in
      _ = try? link.call(.endShare, [first])
      unsafe munmap(base, pageCount * pageByteCount)
      withExtendedLifetime(presence) {}
    }
    return SharedPages(
      pages: pages, references: (0..<count).map { GrantReference(rawValue: first + $0) })
  }

  /// Ends the grant of one page while the page stays shared in our memory: what a guest can do at any moment.
  public func end(_ reference: GrantReference) throws(GrantError) {
    do {
      _ = try link.call(.endGrant, [reference.rawValue])
    } catch {
      throw GrantError(operation: "end grant \(reference.rawValue)", errno: error.errno)
    }
  }
}
