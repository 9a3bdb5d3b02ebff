import CShared
import Glibc
import RingKit

/// One domain's grant words, in memory that the machine writes and every domain may read.
@safe
final class GrantWords: @unchecked Sendable {
  // Sound: the mapping lives as long as this object, indices are checked, and words are read and written with
  // single atomic accesses.
  private let base: UnsafeMutablePointer<UInt32>
  private let descriptor: Descriptor?

  /// New words, none of them a grant: the machine's side.
  init() throws(SystemError) {
    let memory = try Descriptor.sharedMemory(
      name: "grant-words", byteCount: GrantWord.tableByteCount)
    let base = unsafe try memory.map(
      byteCount: GrantWord.tableByteCount, protection: PROT_READ | PROT_WRITE)
    unsafe self.base = base.bindMemory(to: UInt32.self, capacity: GrantWord.tableCount)
    descriptor = memory
  }

  /// Words that the machine handed out: the domains' side, which cannot write.
  init(reading memory: Descriptor) throws(SystemError) {
    let base = unsafe try memory.map(byteCount: GrantWord.tableByteCount, protection: PROT_READ)
    unsafe self.base = base.bindMemory(to: UInt32.self, capacity: GrantWord.tableCount)
    descriptor = nil
  }

  deinit { unsafe munmap(base, GrantWord.tableByteCount) }

  /// What to hand to a reader.
  func readable() throws(SystemError) -> Descriptor? { try descriptor?.reopenedForReading() }

  /// The word of `reference`; none when it is beyond the table.
  func word(_ reference: UInt32) -> GrantWord {
    guard Int(reference) < GrantWord.tableCount else { return .none }
    // Acquire: the pages were granted before the word said so.
    return GrantWord(rawValue: unsafe shared_load_acquire(base + Int(reference)))
  }

  /// Publishes a word; the machine's side only.
  func set(_ word: GrantWord, for reference: UInt32) {
    guard descriptor != nil, Int(reference) < GrantWord.tableCount else { return }
    unsafe shared_store_release(base + Int(reference), word.rawValue)
  }
}
