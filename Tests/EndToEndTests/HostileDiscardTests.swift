import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Discards that break the rules: each is answered once, and takes nothing that it must not.
@Suite(.serialized, .timeLimit(.minutes(10))) struct HostileDiscardTests {
  private func discard(
    _ guest: HostileGuest, _ sector: UInt64, _ count: UInt64, flags: UInt8 = 0
  ) -> SlotCopy {
    BlockRequest(
      discarding: count, flags: flags, id: guest.newID(), sectorNumber: sector, abi: guest.abi
    ).encode()
  }

  /// Where, how much, and how it ends on a disk of 2048 sectors.
  static let ranges: [(sector: UInt64, count: UInt64, status: BlockStatus)] = [
    (0, .max, .error), (8, .max, .error), (.max, 1, .error), (.max, .max, .error), (.max - 7, 16, .error),
    (1 << 63, 1 << 63, .error), (1 << 55, 8, .error), (2048, 1, .error), (2047, 2, .error), (1, 2048, .error),
    (0, 2049, .error), (5, 0, .okay), (2048, 0, .okay), (.max, 0, .okay),
    (HostileGuest.scratchSector, 1, .okay), (2047, 1, .okay), (HostileGuest.scratchSector + 3, 77, .okay),
    (HostileGuest.scratchSector, 1024, .okay),
  ]

  @Test(arguments: BlockABI.allCases) func rangesBeyondTheDisk(abi: BlockABI) throws {
    let guest = try HostileGuest(abi: abi)
    try #require(guest.frontend.features?.discard == true)
    for (sector, count, status) in Self.ranges {
      try guest.expect(status, of: discard(guest, sector, count), "\(count) sectors at \(sector)")
      // Flags that nobody offered change nothing.
      for flags in [1, 2, 0xFF] as [UInt8] where guest.frontend.features?.secureDiscard == false {
        try guest.expect(status, of: discard(guest, sector, count, flags: flags), "flags \(flags)")
      }
    }
    // What follows the fields is nobody's business.
    var slot = discard(guest, HostileGuest.scratchSector, 8)
    for offset in stride(from: abi.discardSectorCountOffset + 8, to: abi.requestByteCount - 7, by: 8) {
      slot.setUInt64(.max, at: offset)
    }
    try guest.expect(.okay, of: slot, "noise after the fields")
    try guest.finish()
  }

  @Test func misalignedToLargeSectors() throws {
    let guest = try HostileGuest(nodes: ["logical-sector-size": "4096"])
    #expect(guest.frontend.disk?.sectorByteCount == 4096)
    #expect(guest.frontend.features?.discardGranularityByteCount == 4096)
    let base = HostileGuest.scratchSector
    for (sector, count) in [(base + 1, 8), (base + 4, 8), (base, 7), (base, 9), (base + 7, 1)]
      as [(UInt64, UInt64)]
    {
      try guest.expect(.error, of: discard(guest, sector, count), "\(count) sectors at \(sector)")
    }
    try guest.expect(.okay, of: discard(guest, base + 8, 16), "aligned")
    for (sector, count, first) in [(base + 1, 8, 0), (base, 7, 0), (base, 8, 4)] as [(UInt64, Int, Int)] {
      let request = BlockFrontRequest(.write, sector: sector, sectorCount: count, firstPageSector: first)
      #expect(try guest.frontend.perform(request) == .error, "write of \(count) at \(sector)")
    }
    #expect(
      try guest.frontend.perform(BlockFrontRequest(.write, sector: base, sectorCount: 8)) == .okay)
    // Told to keep to the rules, the frontend refuses such requests itself.
    guest.frontend.options.allowsMisalignedRequests = false
    try guest.frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(throws: BlockFrontendError.self) {
      try guest.frontend.prepare(BlockFrontRequest(.write, sector: base + 1, sectorCount: 8))
    }
    try guest.frontend.close(timeoutMilliseconds: worldMilliseconds)
    try guest.world.stop()
  }

  @Test func onADiskThatOnlyReads() throws {
    let guest = try HostileGuest(writable: false)
    #expect(guest.frontend.disk?.isReadOnly == true)
    #expect(guest.frontend.features?.discard == false)
    for (sector, count) in [(0, 8), (0, 2048), (0, .max)] as [(UInt64, UInt64)] {
      try guest.expect(.notSupported, .error, of: discard(guest, sector, count), "\(count) at \(sector)")
    }
    let one = [guest.segment(0)]
    try guest.expect(.error, of: guest.indirect(.write, sector: HostileGuest.scratchSector, one), "indirect")
    for operation in [Blkback.BlockOperation.write, .writeBarrier, .flush] {
      #expect(
        try guest.frontend.perform(BlockFrontRequest(operation, sectorCount: 8)) == .error, "\(operation)")
    }
    #expect(try guest.frontend.perform(BlockFrontRequest(.flush)) == .okay)
    #expect(try guest.frontend.perform(BlockFrontRequest(.writeBarrier)) == .okay)
    try guest.finish()
  }

  @Test func whereTheToolstackForbidsThem() throws {
    let guest = try HostileGuest(nodes: ["discard-enable": "0"])
    #expect(guest.frontend.features?.discard == false)
    for (sector, count, _) in Self.ranges {
      try guest.expect(.notSupported, of: discard(guest, sector, count), "\(count) sectors at \(sector)")
    }
    try guest.finish()
  }

  /// As many as fit, huge ones among other requests: the others are answered too, and the neighbour's disk is
  /// read meanwhile.
  @Test func discardsWithoutEnd() throws {
    let guest = try HostileGuest()
    try #require(guest.frontend.features?.discard == true)
    for _ in 0..<4 {
      var count = 0
      for queue in guest.frontend.queues {
        while let handle = try queue.prepare(
          count % 3 == 0
            ? BlockFrontRequest(.read, sectorCount: 8)
            : BlockFrontRequest(.discard, sector: HostileGuest.scratchSector, sectorCount: 1024))
        {
          queue.submit(handle)
          count += 1
        }
      }
      try guest.expectOkay(count)
    }
    try guest.finish()
  }
}
