import CShared
import Glibc
public import RingKit
import Synchronization

/// Grants of the loopback machine: a map is an mmap of the owner's memory, a copy is a memcpy.
@safe
public final class LoopbackGrantTable: GrantTable {
  private let link: MachineLink
  private let presence: MachineLink
  // One for each domain whose pages were copied; there are few, and the last one is nearly always the next.
  private var copiers: [GrantCopier] = []
  private let ledger = GrantLedger()

  init(link: MachineLink, presence: MachineLink) {
    self.link = link
    self.presence = presence
  }

  /// Pages mapped through this handle and not yet unmapped.
  public var mappedPageCount: Int { ledger.mappedPages.load(ordering: .relaxed) }

  public func map(
    _ references: [GrantReference], of domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> MappedPages {
    let what = "map \(references.count) grants of domain \(domain)"
    guard !references.isEmpty else { throw GrantError(operation: what, errno: EINVAL) }
    let byteCount = references.count * pageByteCount
    // Addresses first, so that the pages of several memories come to lie side by side.
    let reserved = unsafe mmap(
      nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let base = unsafe reserved, unsafe base != MAP_FAILED else {
      throw GrantError(operation: what, errno: errno)
    }
    var numbers: [UInt32] = []
    var start = 0
    do throws(MachineFailure) {
      while start < references.count {
        let end = min(start + MachineRequest.maximumReferenceCount, references.count)
        let arguments =
          [UInt32(domain.rawValue), access == .readWrite ? 1 : 0] + references[start..<end].map(\.rawValue)
        let reply = try link.call(.map, arguments)
        guard let number = reply.words.first else {
          throw MachineFailure(refusal: nil, errno: EPROTO)
        }
        numbers.append(number)
        unsafe try place(reply, at: base + start * pageByteCount, count: end - start, access)
        start = end
      }
    } catch {
      unsafe munmap(base, byteCount)
      if !numbers.isEmpty { _ = try? link.call(.unmap, numbers) }
      throw GrantError(operation: what, errno: error.errno)
    }
    ledger.mappedPages.add(references.count, ordering: .relaxed)
    // Sound: the range is ours and fully mapped. The closure keeps the connection until the pages are gone.
    return unsafe MappedPages(base: base, pageCount: references.count) {
      [link, presence, ledger, numbers] base, pageCount in
      unsafe munmap(base, pageCount * pageByteCount)
      _ = try? link.call(.unmap, numbers)
      ledger.mappedPages.subtract(pageCount, ordering: .relaxed)
      withExtendedLifetime(presence) {}
    }
  }

  /// Maps the pages of one reply; pages that lie together in one memory take one call.
  @unsafe
  private func place(
    _ reply: PacketSocket.Packet, at base: UnsafeMutableRawPointer, count: Int, _ access: GrantAccess
  ) throws(MachineFailure) {
    guard reply.words.count == 1 + count * 2 else { throw MachineFailure(refusal: nil, errno: EPROTO) }
    let protection = access == .readWrite ? PROT_READ | PROT_WRITE : PROT_READ
    var index = 0
    while index < count {
      let memory = Int(reply.words[1 + index * 2])
      let page = Int(reply.words[2 + index * 2])
      var length = 1
      while index + length < count, Int(reply.words[1 + (index + length) * 2]) == memory,
        Int(reply.words[2 + (index + length) * 2]) == page + length
      {
        length += 1
      }
      guard memory < reply.descriptors.count else { throw MachineFailure(refusal: nil, errno: EPROTO) }
      // Sound: the target lies in the range that was reserved for these pages.
      let placed = unsafe mmap(
        base + index * pageByteCount, length * pageByteCount, protection, MAP_SHARED | MAP_FIXED,
        reply.descriptors[memory].raw, page * pageByteCount)
      guard unsafe placed != MAP_FAILED else { throw MachineFailure(refusal: nil, errno: errno) }
      index += length
    }
  }

  public func copy(_ batch: inout GrantCopyBatch) {
    var copier: GrantCopier?
    for index in 0..<batch.count {
      if let copy = batch.guestToGuest(at: index) {
        batch.setStatus(self.copy(copy), at: index)
        continue
      }
      let segment = batch[index]
      if copier?.owner != segment.domain { copier = self.copier(of: segment.domain) }
      let status = copier?.copy(segment) ?? GrantStatus.badDomain
      batch.setStatus(status, at: index)
    }
  }

  private func copy(_ copy: GrantCopyBatch.GuestToGuest) -> Int16 {
    guard let source = copier(of: copy.source.domain), let destination = copier(of: copy.destination.domain)
    else { return GrantStatus.badDomain }
    return GrantCopier.copy(copy, from: source, to: destination)
  }

  private func copier(of domain: DomainID) -> GrantCopier? {
    if let known = copiers.first(where: { $0.owner == domain }) { return known }
    guard let new = GrantCopier(owner: domain, link: link) else { return nil }
    copiers.append(new)
    return new
  }
}

/// Counts pages across threads: mappings end wherever their last holder is.
private final class GrantLedger: Sendable {
  let mappedPages = Atomic(0)
}

/// Verdicts on copies, by their names in grant_table.h.
enum GrantStatus {
  /// GNTST_okay
  static var okay: Int16 { 0 }
  /// GNTST_bad_domain
  static var badDomain: Int16 { -2 }
  /// GNTST_bad_gntref
  static var badReference: Int16 { -3 }
  /// GNTST_permission_denied
  static var permissionDenied: Int16 { -8 }
  /// GNTST_bad_copy_arg
  static var badArgument: Int16 { -10 }
}
