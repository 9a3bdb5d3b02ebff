/// Frames between the pool and files that packets come from and go to.
extension DataLoop {
  /// Reads what a TAP has into a segment of the pool, without waiting: ``IORing/readNow(_:into:token:)``.
  @inlinable
  public func readPooledNow(_ file: IOFile, into segment: IOSegment, token: UInt64) {
    if let buffer = poolRegistration {
      ring.readFixedNow(file, into: segment, buffer: buffer, token: token)
    } else {
      ring.readNow(file, into: segment, token: token)
    }
  }

  /// Writes a segment of the pool to a TAP, without waiting.
  @inlinable
  public func writePooledNow(_ file: IOFile, from segment: IOSegment, token: UInt64) {
    if let buffer = poolRegistration {
      ring.writeFixedNow(file, from: segment, buffer: buffer, token: token)
    } else {
      ring.writeNow(file, from: segment, token: token)
    }
  }
}
