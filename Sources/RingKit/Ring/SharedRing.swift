public import CShared

/// The words and slots of a ring in shared pages, as both ends reach them: every access names a header word
/// or an index, and an index always falls inside the mapping because it is masked.
@frozen @usableFromInline @safe
struct SharedRing: ~Copyable, @unchecked Sendable {
  // Sound: `pages` keeps the mapping alive as long as the pointers into it, neither ever changes, and the
  // geometry was computed from the mapping's own size. Shared bytes are touched only through CShared,
  // for which change by others is expected, so that it may move to another thread.
  @usableFromInline let pages: MappedPages
  @usableFromInline let header: UnsafeMutablePointer<UInt32>
  @usableFromInline let firstSlot: UnsafeMutableRawPointer
  @usableFromInline let slotMask: UInt32
  @usableFromInline let slotByteCount: Int

  /// A ring over all of `pages`.
  @usableFromInline
  init(pages: MappedPages, slotByteCount: Int) {
    let geometry = RingGeometry(pageCount: pages.pageCount, slotByteCount: slotByteCount)
    self.pages = pages
    unsafe header = pages.unsafeBase.bindMemory(to: UInt32.self, capacity: 4)
    unsafe firstSlot = pages.unsafeBase + RingGeometry.firstSlotOffset
    slotMask = UInt32(geometry.slotCount - 1)
    self.slotByteCount = slotByteCount
  }

  /// The words of the header, in the order of ring.h.
  @frozen @usableFromInline
  enum Word: Int {
    case requestProducer, requestEvent, responseProducer, responseEvent
  }

  @inlinable var slotCount: UInt32 { slotMask + 1 }

  /// Reads the other side's producer before what it published.
  @inlinable
  func loadProducer(_ word: Word) -> UInt32 { unsafe shared_load_acquire(header + word.rawValue) }

  /// Reads the index at which the other side wants to be notified.
  @inlinable
  func loadEvent(_ word: Word) -> UInt32 { unsafe shared_load_relaxed(header + word.rawValue) }

  /// Publishes our producer after the messages before it, then orders it before whatever is read next.
  @inlinable
  func storeProducer(_ word: Word, _ value: UInt32) {
    unsafe shared_store_release(header + word.rawValue, value)
    shared_full_fence()
  }

  /// Asks to be notified at `value`, ordered before whatever is read next.
  @inlinable
  func storeEvent(_ word: Word, _ value: UInt32) {
    unsafe shared_store_relaxed(header + word.rawValue, value)
    shared_full_fence()
  }

  /// Writes the header of an empty ring whose counters stand at `index` (ring.h, SHARED_RING_INIT).
  @usableFromInline
  func format(index: UInt32) {
    let zeroes = InlineArray<64, UInt8>(repeating: 0)
    // Sound: every byte of an array of integers is defined.
    pages.copyIn(offset: 0, from: unsafe zeroes.span.bytes)
    storeProducer(.requestProducer, index)
    storeProducer(.responseProducer, index)
    storeEvent(.requestEvent, index &+ 1)
    storeEvent(.responseEvent, index &+ 1)
  }

  @inlinable
  func slot(at index: UInt32) -> UnsafeMutableRawPointer {
    unsafe firstSlot + Int(index & slotMask) &* slotByteCount
  }

  /// Copies the first `byteCount` bytes of the slot at `index` out, each read once.
  @inlinable
  func copySlot(at index: UInt32, into copy: inout SlotCopy, byteCount: Int) {
    precondition(byteCount > 0 && byteCount <= slotByteCount)
    // Sound: a slot is never larger than a copy (RingGeometry), and both ranges hold byteCount bytes.
    unsafe withUnsafeMutableBytes(of: &copy) { bytes in
      guard let to = bytes.baseAddress else { return }
      unsafe shared_copy_in(to, slot(at: index), byteCount)
    }
  }

  /// Writes the first `byteCount` bytes of the slot at `index`, each once; the others stay as they are.
  @inlinable
  func fillSlot(at index: UInt32, from copy: SlotCopy, byteCount: Int) {
    precondition(byteCount > 0 && byteCount <= slotByteCount)
    // Sound: as in copySlot.
    unsafe withUnsafeBytes(of: copy) { bytes in
      guard let from = bytes.baseAddress else { return }
      unsafe shared_copy_out(slot(at: index), from, byteCount)
    }
  }
}
