import CShared
import Glibc
import RingKit

/// Copies to, from and between the pages of one domain, through mappings of its shares that are kept.
///
/// Whether a page is still granted is read from the owner's grant words, so a copy needs the machine only the
/// first time it meets a share.
@safe
final class GrantCopier {
  /// Whose pages.
  let owner: DomainID

  /// One share's memory, mapped whole.
  @safe
  private struct Share {
    // Sound: ours from mmap to munmap, `pageCount` pages long; the memory cannot shrink (sealed).
    let base: UnsafeMutableRawPointer
    let pageCount: Int
    let first: UInt32
    let word: GrantWord
  }

  private let link: MachineLink
  private let words: GrantWords
  private var shares: [Share?] = []
  private var keptPageCount = 0
  private var nextVictim = 0
  // Index into `shares`, for each reference that was met.
  private var shareOf: [UInt16]

  // Bounds on what is kept, whatever the owner shares.
  private let maximumShareCount: Int
  private let maximumPageCount: Int

  /// Nil when the machine knows no such domain.
  init?(
    owner: DomainID, link: MachineLink, maximumShareCount: Int = 4096, maximumPageCount: Int = 65536
  ) {
    precondition(maximumShareCount > 0 && maximumShareCount <= Int(UInt16.max))
    guard let memory = try? link.call(.grantWords, [UInt32(owner.rawValue)]).descriptors.first,
      let words = try? GrantWords(reading: memory)
    else { return nil }
    self.owner = owner
    self.link = link
    self.words = words
    self.maximumShareCount = maximumShareCount
    self.maximumPageCount = maximumPageCount
    shareOf = [UInt16](repeating: 0, count: GrantWord.tableCount)
  }

  deinit {
    for case let share? in shares {
      unsafe munmap(share.base, share.pageCount * pageByteCount)
    }
  }

  /// Does one copy and returns its status.
  func copy(_ segment: GrantCopyBatch.Segment) -> Int16 {
    let length = Int(segment.local.length)
    let granted = GrantCopyBatch.GrantedBytes(
      domain: segment.domain, reference: segment.reference, pageOffset: segment.pageOffset)
    do throws(GrantRefusal) {
      let remote = unsafe try locate(granted, length, forWriting: segment.toGuest)
      guard let local = unsafe UnsafeMutableRawPointer(bitPattern: segment.local.address) else {
        return GrantStatus.badArgument
      }
      // Sound: `locate` checked the remote side, and the caller keeps its memory alive.
      if segment.toGuest {
        unsafe shared_copy_data(remote, local, length)
      } else {
        unsafe shared_copy_data(local, remote, length)
      }
      return GrantStatus.okay
    } catch {
      return error.status
    }
  }

  /// Does one copy from a page of `source` to one of `destination`, and returns its status.
  static func copy(
    _ copy: GrantCopyBatch.GuestToGuest, from source: GrantCopier, to destination: GrantCopier
  ) -> Int16 {
    do throws(GrantRefusal) {
      if source !== destination {
        let from = unsafe try source.locate(copy.source, copy.byteCount, forWriting: false)
        let to = unsafe try destination.locate(copy.destination, copy.byteCount, forWriting: true)
        unsafe shared_copy_data(to, from, copy.byteCount)
      } else {
        try source.copyWithin(copy)
      }
      return GrantStatus.okay
    } catch {
      return error.status
    }
  }

  /// A copy between two pages of the owner. It goes through a page of ours: mapping one share may drop the
  /// other, and the two may be one page.
  private func copyWithin(_ copy: GrantCopyBatch.GuestToGuest) throws(GrantRefusal) {
    let between = UnsafeMutableRawPointer.allocate(byteCount: pageByteCount, alignment: pageByteCount)
    defer { unsafe between.deallocate() }
    // Both sides before a byte moves, as the hypervisor has it.
    _ = unsafe try locate(copy.destination, copy.byteCount, forWriting: true)
    let from = unsafe try locate(copy.source, copy.byteCount, forWriting: false)
    unsafe shared_copy_data(between, from, copy.byteCount)
    let to = unsafe try locate(copy.destination, copy.byteCount, forWriting: true)
    unsafe shared_copy_data(to, between, copy.byteCount)
  }

  /// Why a copy was not done.
  private struct GrantRefusal: Error {
    let status: Int16
  }

  /// Where `length` granted bytes lie until the next call.
  @unsafe
  private func locate(
    _ granted: GrantCopyBatch.GrantedBytes, _ length: Int, forWriting: Bool
  ) throws(GrantRefusal) -> UnsafeMutableRawPointer {
    let reference = granted.reference.rawValue
    let word = words.word(reference)
    guard word.isLive else { throw GrantRefusal(status: GrantStatus.badReference) }
    if forWriting, !word.isWritable { throw GrantRefusal(status: GrantStatus.permissionDenied) }
    guard granted.pageOffset >= 0, granted.pageOffset + length <= pageByteCount else {
      throw GrantRefusal(status: GrantStatus.badArgument)
    }
    guard let share = keptShare(reference, word) ?? fetch(reference, word) else {
      throw GrantRefusal(status: GrantStatus.badReference)
    }
    // Sound: the page lies in the share, and the bytes in the page.
    return unsafe share.base + Int(reference - share.first) * pageByteCount + granted.pageOffset
  }

  /// Shares and pages that are mapped now.
  var kept: (shareCount: Int, pageCount: Int) { (shares.count { $0 != nil }, keptPageCount) }

  private func keptShare(_ reference: UInt32, _ word: GrantWord) -> Share? {
    let index = Int(shareOf[Int(reference)])
    guard index < shares.count, let share = shares[index] else { return nil }
    // The word names the share, so an equal one means the very same grant.
    return share.word == word && holds(share, reference) ? share : nil
  }

  private func holds(_ share: Share, _ reference: UInt32) -> Bool {
    reference >= share.first && Int(reference - share.first) < share.pageCount
  }

  /// Asks the machine for the memory of a share that is not kept.
  private func fetch(_ reference: UInt32, _ word: GrantWord) -> Share? {
    guard let reply = try? link.call(.lookUp, [UInt32(owner.rawValue), reference]),
      reply.words.count == 3, let memory = reply.descriptors.first
    else { return nil }
    let pageCount = Int(reply.words[1])
    let found = GrantWord(rawValue: reply.words[2])
    guard found == word else { return nil }
    makeRoom(pageCount)
    let protection = word.isWritable ? PROT_READ | PROT_WRITE : PROT_READ
    guard
      let base = unsafe try? memory.map(
        byteCount: pageCount * pageByteCount, protection: protection)
    else { return nil }
    let share = unsafe Share(base: base, pageCount: pageCount, first: reply.words[0], word: word)
    guard holds(share, reference) else {
      unsafe munmap(base, pageCount * pageByteCount)
      return nil
    }
    keep(share)
    return share
  }

  private func keep(_ share: Share) {
    var index = shares.firstIndex { $0 == nil } ?? shares.count
    if index == shares.count, index < maximumShareCount {
      shares.append(nil)
    } else if index == shares.count {
      index = nextVictim
      drop(index)
    }
    shares[index] = share
    keptPageCount += share.pageCount
    for reference in share.first..<share.first + UInt32(share.pageCount)
    where Int(reference) < shareOf.count {
      shareOf[Int(reference)] = UInt16(index)
    }
  }

  /// Lets go of shares that have ended, and then of the oldest ones, until `pageCount` more pages may be
  /// kept.
  private func makeRoom(_ pageCount: Int) {
    for index in shares.indices {
      if let share = shares[index], words.word(share.first) != share.word { drop(index) }
    }
    var left = shares.count
    while keptPageCount + pageCount > maximumPageCount, left > 0 {
      drop(nextVictim)
      left -= 1
    }
    let used = shares.count { $0 != nil }
    if used == maximumShareCount { drop(nextVictim) }
  }

  private func drop(_ index: Int) {
    nextVictim = (index + 1) % max(1, shares.count)
    guard let share = shares[index] else { return }
    unsafe munmap(share.base, share.pageCount * pageByteCount)
    keptPageCount -= share.pageCount
    shares[index] = nil
  }
}
