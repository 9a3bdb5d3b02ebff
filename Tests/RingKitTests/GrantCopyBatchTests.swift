import CXen
import RingKit
import Testing

/// What the hypervisor is handed, whatever order copies were added in.
struct GrantCopyBatchTests {
  let memory = IOSegment(address: 0x10_0000, length: 4096)

  func segment(_ number: Int, toGuest: Bool) -> GrantCopyBatch.Segment {
    GrantCopyBatch.Segment(
      toGuest: toGuest, domain: DomainID(rawValue: UInt16(number + 1)),
      reference: GrantReference(rawValue: UInt32(number) + 100), pageOffset: number,
      local: memory.slice(offset: UInt(number) * 16, count: 16))
  }

  func between(_ number: Int) -> GrantCopyBatch.GuestToGuest {
    GrantCopyBatch.GuestToGuest(
      source: .init(
        domain: DomainID(rawValue: 3), reference: GrantReference(rawValue: UInt32(number)), pageOffset: 4095),
      destination: .init(
        domain: DomainID(rawValue: 4), reference: GrantReference(rawValue: .max), pageOffset: 0),
      byteCount: 1)
  }

  /// One call of the kernel never has both directions (net.md 3.6), and each keeps its order.
  @Test func directionsAreKeptApart() {
    var batch = GrantCopyBatch(capacity: 8)
    let indices = [
      batch.append(segment(0, toGuest: true)), batch.append(segment(1, toGuest: false)),
      batch.append(between(2)), batch.append(segment(3, toGuest: false)),
      batch.append(segment(4, toGuest: true)),
    ]
    #expect(indices == [0, 1, 2, 3, 4])
    let (count, isFull) = (batch.count, batch.isFull)
    #expect(count == 5 && !isFull)
    let into = unsafe RawCopy.all(of: batch.unsafeCopiesIn)
    let outOf = unsafe RawCopy.all(of: batch.unsafeCopiesOut)
    #expect(
      into == [
        RawCopy(flags: 1, length: 16, source: [101, 1, 2], destination: [0x10_0010, 0, 0]),
        RawCopy(flags: 1, length: 16, source: [103, 3, 4], destination: [0x10_0030, 0, 0]),
      ])
    #expect(
      outOf == [
        RawCopy(flags: 2, length: 16, source: [0x10_0000, 0, 0], destination: [100, 0, 1]),
        RawCopy(flags: 3, length: 1, source: [2, 4095, 3], destination: [0xFFFF_FFFF, 0, 4]),
        RawCopy(flags: 2, length: 16, source: [0x10_0040, 0, 0], destination: [104, 4, 5]),
      ])
    // What the kernel reports comes out under the index that the copy was given.
    // Sound: the batch is not changed meanwhile.
    unsafe batch.unsafeCopiesIn[1].status = 0
    unsafe batch.unsafeCopiesOut[1].status = -8
    let statuses = (0..<5).map { batch.status(at: $0) }
    #expect(statuses == [-1, -1, -8, 0, -1])
  }

  /// A copy as libxengnttab is handed it: an address, or reference, offset and domain.
  struct RawCopy: Equatable {
    var flags: UInt16
    var length: UInt16
    var source: [UInt]
    var destination: [UInt]

    @unsafe
    static func all(of copies: UnsafeMutableBufferPointer<xengnttab_grant_copy_segment_t>) -> [RawCopy] {
      var all: [RawCopy] = []
      for index in copies.indices {
        let raw = unsafe copies[index]
        let flags = unsafe raw.flags
        all.append(
          RawCopy(
            flags: flags, length: unsafe raw.len, source: unsafe side(raw.source, isGranted: flags & 1 != 0),
            destination: unsafe side(raw.dest, isGranted: flags & 2 != 0)))
      }
      return all
    }

    @unsafe
    private static func side(_ side: xengnttab_copy_ptr, isGranted: Bool) -> [UInt] {
      guard isGranted else { return [UInt(bitPattern: unsafe side.virt), 0, 0] }
      let place = unsafe side.foreign
      return [UInt(place.ref), UInt(place.offset), UInt(place.domid)]
    }
  }

  @Test func eachCopyIsReadBackAsItWasAdded() {
    var batch = GrantCopyBatch(capacity: 6)
    for round in 0..<3 {
      for number in 0..<6 {
        if number % 3 == round {
          batch.append(between(number))
        } else {
          batch.append(segment(number, toGuest: number % 2 == 0))
        }
      }
      let isFull = batch.isFull
      #expect(isFull)
      for number in 0..<6 {
        let copy = batch.guestToGuest(at: number)
        #expect(copy == (number % 3 == round ? between(number) : nil))
        batch.setStatus(Int16(-number), at: number)
        guard number % 3 != round else { continue }
        let (read, put) = (batch[number], segment(number, toGuest: number % 2 == 0))
        #expect(read.toGuest == put.toGuest && read.domain == put.domain && read.local == put.local)
        #expect(read.reference == put.reference && read.pageOffset == put.pageOffset)
      }
      let statuses = (0..<6).map { batch.status(at: $0) }
      #expect(statuses == (0..<6).map { Int16(-$0) })
      batch.removeAll()
      let count = batch.count
      #expect(count == 0)
    }
  }
}
