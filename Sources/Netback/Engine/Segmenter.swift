public import RingKit

/// Cuts a TCP packet into segments in software, for an end that does not take it whole. The segments are those
/// that Linux makes (tcp_gso_segment): all headers repeated, IPv4's identification counted up, FIN and PSH in
/// the last one only, CWR in the first one only, every checksum complete.
@frozen
public struct Segmenter: BitwiseCopyable {
  @usableFromInline let headers: PacketHeaders
  @usableFromInline let segmentSize: Int
  @usableFromInline let frame: PrivateBytes
  @usableFromInline let hash: NetHash?
  /// Segments, 1 and more; 0 when the frame is not TCP as its `segmentation` says, and is to be dropped.
  public let segmentCount: Int

  /// Looks at `frame`, which stays as it is. A frame whose payload is no longer than `segmentSize` becomes one
  /// segment, without the padding that it had.
  public init(frame: PrivateBytes, offload: PacketOffload) {
    self.frame = frame
    hash = offload.hash
    headers = PacketHeaders(frame)
    segmentSize = Int(offload.segmentSize)
    if segmentSize > 0, headers.canBeSegmented(as: offload.segmentation) {
      segmentCount = max(1, (headers.payloadByteCount + segmentSize - 1) / segmentSize)
    } else {
      segmentCount = 0
    }
  }

  /// Bytes of the segment `index`, 0..<``segmentCount``. The first one is no shorter than any other.
  public func byteCount(of index: Int) -> Int {
    precondition(index >= 0 && index < segmentCount)
    return headers.headerByteCount + min(segmentSize, headers.payloadByteCount - index * segmentSize)
  }

  /// Writes the segment `index`, 0..<``segmentCount``, to the beginning of `destination`, which has room for
  /// its ``byteCount(of:)`` and is other memory than the frame. Its checksum is complete and counts as
  /// validated, for the reason that ``SoftwareChecksum/complete(_:_:)`` gives.
  public func write(_ index: Int, to destination: PrivateBytes) -> (byteCount: Int, offload: PacketOffload) {
    let byteCount = byteCount(of: index)
    let segment = destination.slice(from: 0, count: byteCount)
    let headerCount = headers.headerByteCount
    let payloadStart = index * segmentSize
    segment.copy(headerCount, at: 0, from: frame, at: 0)
    segment.copy(
      byteCount - headerCount, at: headerCount, from: frame, at: headerCount + payloadStart)
    setNetworkHeader(segment, index)
    setTransportHeader(segment, index, payloadStart: payloadStart)
    var offload = PacketOffload()
    offload.checksum = .validated
    offload.headerByteCount = UInt16(truncatingIfNeeded: headerCount)
    offload.hash = hash
    return (byteCount, offload)
  }

  private func setNetworkHeader(_ segment: PrivateBytes, _ index: Int) {
    let start = headers.networkStart
    if headers.network == .ipv4 {
      segment.setUInt16(UInt16(truncatingIfNeeded: segment.count - start), at: start + 2)
      segment.setUInt16(segment.uint16(at: start + 4) &+ UInt16(truncatingIfNeeded: index), at: start + 4)
      let checksum = InternetChecksum.ofIPv4Header(
        segment, at: start, byteCount: headers.transportStart - start)
      segment.setUInt16(checksum, at: start + 10)
    } else {
      segment.setUInt16(UInt16(truncatingIfNeeded: segment.count - start - 40), at: start + 4)
    }
  }

  private func setTransportHeader(_ segment: PrivateBytes, _ index: Int, payloadStart: Int) {
    let start = headers.transportStart
    let sequence = segment.uint32(at: start + 4)
    segment.setUInt32(sequence &+ UInt32(truncatingIfNeeded: payloadStart), at: start + 4)
    if index > 0 { segment[start + 13] &= ~0x80 }  // CWR
    if index < segmentCount - 1 { segment[start + 13] &= ~0x09 }  // PSH, FIN
    segment.setUInt16(0, at: start + 16)
    let count = segment.count - start
    let sum = InternetChecksum.pseudoHeaderSum(segment, headers, byteCount: count)
    let checksum = ~InternetChecksum.folded(sum &+ segment.internetSum(from: start, count: count))
    segment.setUInt16(checksum, at: start + 16)
  }
}
