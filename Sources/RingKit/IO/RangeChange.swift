import CUring
import Glibc

/// What becomes of a range of a medium other than being written.
public enum RangeChange: BitwiseCopyable, Sendable {
  /// Given back: its old bytes may be read again, or zeros.
  case giveBack
  /// Given back so that no copy of its bytes can be read again.
  case giveBackSecurely
  /// Made to read as zeros.
  case zero
}

/// How a file or device takes ranges back.
public struct RangeSupport: Sendable, Equatable {
  /// What it takes back are multiples of this, in bytes: a power of two, at least 512.
  public var unitByteCount: Int
  /// Whether ``RangeChange/giveBackSecurely`` works.
  public var isSecurePossible: Bool
}

extension StorageFile {
  /// Asks, without changing a byte, whether and how ranges can be given back or zeroed; nil where they cannot.
  /// Control thread.
  public func rangeSupport(for change: RangeChange) -> RangeSupport? {
    if isReadOnly { return nil }
    return isBlockDevice ? deviceSupport(for: change) : fileSupport(for: change)
  }

  private func deviceSupport(for change: RangeChange) -> RangeSupport? {
    let isSecurePossible = ringback_can_discard_securely(descriptor) != 0
    switch change {
    case .zero:
      // The kernel writes zeros where the device knows nothing better (BLKZEROOUT).
      return RangeSupport(unitByteCount: deviceBlockByteCount, isSecurePossible: false)
    case .giveBackSecurely where !isSecurePossible:
      return nil
    case .giveBack, .giveBackSecurely:
      guard ringback_can_discard(descriptor) != 0 else { return nil }
      var unit = deviceBlockByteCount
      let granularity = Int(ringback_discard_granularity(descriptor))
      // What a device rounds by itself need not be a power of two.
      if granularity > unit && granularity <= 16 << 20 && granularity.nonzeroBitCount == 1 {
        unit = granularity
      }
      return RangeSupport(unitByteCount: unit, isSecurePossible: isSecurePossible)
    }
  }

  private var deviceBlockByteCount: Int {
    (try? Medium(path: path, descriptor: descriptor, isBlockDevice: true))?.logicalBlockByteCount
      ?? logicalBlockByteCount
  }

  private func fileSupport(for change: RangeChange) -> RangeSupport? {
    guard change != .giveBackSecurely, let status = unsafe Self.status({ unsafe fstat(descriptor, $0) })
    else { return nil }
    // A hole far behind the end of the file: nothing is there, the size stays, and yet the file system has to
    // say whether it knows holes. Nearer where it has no such offsets (EFBIG).
    let mode = IOAllocation.punchHole.rawValue
    let size = (Int64(status.st_size) + 4095) & ~4095
    let knowsHoles = [Int64(1) << 40, 1 << 32, 1 << 20].contains {
      ringback_fallocate(descriptor, mode, size + $0, 4096) == 0
    }
    guard knowsHoles else { return nil }
    // Zeroing takes any bytes; only whole blocks of the file system are given back.
    let block = Int(status.st_blksize)
    let isUsable = block.nonzeroBitCount == 1 && block >= 512 && block <= 65536
    return RangeSupport(
      unitByteCount: change == .zero ? 512 : isUsable ? block : 4096, isSecurePossible: false)
  }
}

extension DataLoop {
  /// Makes ready for ``change(_:of:as:at:byteCount:token:)``, as control work does before the first one.
  public func prepareChanges() throws(HostError) {
    guard calls == nil else { return }
    do throws(SystemError) {
      calls = try BlockingCalls(threadCount: 1)
    } catch {
      throw HostError("data thread \(number): \(error)")
    }
  }

  /// Changes a range of an open medium, in bytes within its ``RangeSupport``; `file` is the medium as the ring
  /// knows it. Its end is a completion with `token`: 0 or a negative error number. A file's holes are punched
  /// through the ring; what has no operation there is done by a thread. The medium stays open until then.
  public func change(
    _ change: RangeChange, of storage: StorageFile, as file: IOFile, at offset: UInt64, byteCount: UInt64,
    token: UInt64
  ) {
    let kind: BlockingCall.Kind
    switch (change, storage.isBlockDevice) {
    case (.giveBack, false), (.giveBackSecurely, false):
      ring.fallocate(file, .punchHole, at: offset, byteCount: byteCount, token: token)
      return
    case (.zero, false): kind = .zeroFile
    case (.giveBack, true): kind = .discardDevice
    case (.giveBackSecurely, true): kind = .secureDiscardDevice
    case (.zero, true): kind = .zeroDevice
    }
    guard let calls else { preconditionFailure("prepareChanges() was not called") }
    calls.submit(
      BlockingCall(
        kind: kind, descriptor: storage.descriptor, offset: offset, byteCount: byteCount, token: token))
    watchCalls()
  }

  /// Has the ring tell when a call has ended, while there are any.
  private func watchCalls() {
    guard let calls, !isWatchingCalls, calls.inFlightCount > 0 else { return }
    isWatchingCalls = true
    ring.pollReadable(IOFile(descriptor: calls.descriptor), token: LoopToken.calls)
  }

  /// Tells the queues which calls have ended.
  @usableFromInline
  func drainCalls() {
    isWatchingCalls = false
    calls?.takeEnded { deliver($0) }
    watchCalls()
  }
}
