import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Guests that were saved: restored under a new number, or going on under the old one without ever having
/// closed.
@Suite(.serialized, .timeLimit(.minutes(10))) struct LibxlResumeTests {
  static let (guest, device) = (LibxlWorld.guest, LibxlWorld.device)

  /// How a frontend comes back (xen-blkfront.c, blkfront_resume, and what a kernel without it does).
  enum Resumption: CaseIterable, Sendable {
    /// It starts from Initialising.
    case fromInitialising
    /// It writes its new rings and Initialised over Connected.
    case fromInitialised
    /// The same, and its state is Connected again before anybody has looked.
    case unseen
  }

  /// A checkpoint (`xl save -c`), or a migration that failed: the same domain with new rings, and the backend
  /// was never told to close.
  @Test(arguments: Resumption.allCases)
  func aCheckpointedGuestGoesOn(resumption: Resumption) throws {
    let world = try LibxlWorld()
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: try world.makeImage())
    let before = try world.frontend()
    try before.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try before.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    // In flight when the guest was saved; the resumed frontend submits them again, nobody reads the answers.
    while let handle = try before.prepare(BlockFrontRequest(.read, sectorCount: 8)) { before.submit(handle) }
    try before.push()

    let after = try world.frontend()
    switch resumption {
    case .fromInitialising:
      try after.connect(timeoutMilliseconds: worldMilliseconds)
    case .fromInitialised:
      try after.resume(atOnce: false, timeoutMilliseconds: worldMilliseconds)
    case .unseen:
      try after.resume(atOnce: true, timeoutMilliseconds: worldMilliseconds)
    }
    for _ in 0..<50 {
      #expect(try after.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    }
    #expect(try after.perform(BlockFrontRequest(.flush)) == .okay)
    #expect(try world.errorText() == nil)
    try world.toolstack.beginRemoving(Self.guest, Self.device)
    try after.close(timeoutMilliseconds: worldMilliseconds)
    try world.toolstack.remove(Self.guest, Self.device)
    #expect(world.mappedPageCount() == 0)
    try world.daemon.stop()
  }

  /// `xl save`, `xl restore`: the domain ends with its disk, and comes back under another number.
  @Test func aRestoredGuestFindsWhatItHadWritten() throws {
    let world = try LibxlWorld()
    let params = try world.makeImage()
    let pattern = world.path("pattern.img")
    try Data((0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 / 512) }).write(to: URL(filePath: pattern))
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: params)
    let before = try world.frontend()
    try before.connect(timeoutMilliseconds: worldMilliseconds)
    try ImageTransfer().copyIn(path: pattern, to: before)
    // Suspended, saved, destroyed: its frontend never closes.
    try world.toolstack.remove(Self.guest, Self.device, isForced: true)

    let restored = DomainID(rawValue: 8)
    try world.addGuest(restored)
    try world.toolstack.attach(restored, Self.device, params: params)
    let after = try world.frontend(restored)
    try after.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try ImageTransfer().compare(path: pattern, with: after) == nil)
    try after.close(timeoutMilliseconds: worldMilliseconds)
    try world.daemon.stop()
  }
}
