import Blkback
import RingKit

/// Compares the sectors of a finished read with a file.
struct SectorComparison {
  private var ours = SectorBuffer()
  private var theirs = SectorBuffer()

  /// The first sector of the disk that differs from the file, whose byte 0 belongs to `sector`; nil for none.
  mutating func firstDifference(
    _ handle: RequestHandle, _ queue: BlockFrontendQueue, _ file: ImageFile, from sector: UInt64
  ) throws(BlockFrontendError) -> UInt64? {
    let request = queue.request(handle)
    for position in 0..<request.sectorCount {
      let current = request.sector + UInt64(position)
      ours.withMutableBytes { queue.copyOut(&$0, from: handle, at: position * wireSectorByteCount) }
      try read(file, at: (current - sector) * UInt64(wireSectorByteCount))
      if ours != theirs { return current }
    }
    return nil
  }

  private mutating func read(_ file: ImageFile, at offset: UInt64) throws(BlockFrontendError) {
    var failure: SystemError?
    theirs.withMutableBytes { bytes in
      // Sound: the address is used only within this closure, while the buffer stays.
      unsafe bytes.withUnsafeMutableBytes { raw in
        let segment = IOSegment(address: UInt(bitPattern: raw.baseAddress), length: UInt(raw.count))
        do throws(SystemError) {
          try file.read(into: segment, at: offset)
        } catch {
          failure = error
        }
      }
    }
    if let failure { throw .system(failure) }
  }
}
