import Blkback
import RingKit

/// What requests look like in the ring.
extension BlockFrontendQueue {
  /// The slot of a request in the table; fills its descriptor pages.
  func slot(for index: Int) -> SlotCopy {
    let request = entries[index].request
    let id = id(of: index)
    if request.operation == .discard {
      return BlockRequest(
        discarding: UInt64(request.sectorCount),
        flags: request.isSecure ? BlockRequest.discardSecureFlag : 0, id: id, sectorNumber: request.sector,
        handle: handle, abi: abi
      ).encode()
    }
    // One carried over from another connection has the pages it was given there.
    let descriptorPages = min(
      descriptorPageCount(of: request), Int(entries[index].pageCount) - request.pageCount)
    return descriptorPages > 0
      ? indirectSlot(index, request, id, descriptorPages) : directSlot(index, request, id)
  }

  private func directSlot(_ index: Int, _ request: BlockFrontRequest, _ id: UInt64) -> SlotCopy {
    let count = request.pageCount
    let fixed = BlockRequest(
      operation: request.operation, segmentCount: UInt8(count), id: id, sectorNumber: request.sector,
      handle: handle, abi: abi)
    var slot = fixed.encode()
    for position in 0..<count {
      fixed.setSegment(segment(position, of: index, request), at: position, in: &slot)
    }
    return slot
  }

  /// blkif.h, struct blkif_request_indirect: the segments stand in pages of their own, 512 in each.
  private func indirectSlot(
    _ index: Int, _ request: BlockFrontRequest, _ id: UInt64, _ descriptorPages: Int
  ) -> SlotCopy {
    let count = request.pageCount
    let fixed = BlockRequest(
      indirect: request.operation, segmentCount: UInt16(count), id: id, sectorNumber: request.sector,
      handle: handle, abi: abi)
    var slot = fixed.encode()
    var words = SectorBuffer()
    for number in 0..<descriptorPages {
      let page = pages.page(count + number, of: index)
      fixed.setIndirectReference(page.reference, at: number, in: &slot)
      // A sector's worth of descriptors at a time: 64 of 8 bytes.
      let end = min(count, (number + 1) * segmentsPerIndirectPage)
      for start in stride(from: number * segmentsPerIndirectPage, to: end, by: SectorBuffer.wordCount) {
        for position in start..<min(end, start + SectorBuffer.wordCount) {
          words[position - start] = segment(position, of: index, request).word
        }
        let offset = page.offset + start % segmentsPerIndirectPage * BlockSegment.byteCount
        words.withBytes { page.pages.copyIn(offset: offset, from: $0) }
      }
    }
    return slot
  }

  /// The sectors that page `position` carries.
  private func segment(_ position: Int, of index: Int, _ request: BlockFrontRequest) -> BlockSegment {
    let first = position == 0 ? request.firstPageSector : 0
    let before = position == 0 ? 0 : position * 8 - request.firstPageSector
    let count = min(8 - first, request.sectorCount - before)
    return BlockSegment(
      reference: pages.page(position, of: index).reference, firstSector: UInt8(first),
      lastSector: UInt8(first + count - 1))
  }
}
