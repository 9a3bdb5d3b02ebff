public import Blkback
public import RingKit

/// Why a frontend cannot go on.
public enum BlockFrontendError: Error, CustomStringConvertible {
  /// A facility of the host is missing.
  case host(HostError)
  /// Dealings with the backend through xenstore failed.
  case directory(FrontendDirectoryError)
  /// Pages could not be shared.
  case grant(GrantError)
  /// An event channel failed.
  case events(EventChannelError)
  /// A system call failed.
  case system(SystemError)
  /// The ring is smaller than the one whose requests are to be submitted again.
  case ringShrank(from: Int, to: Int)
  /// The backend takes fewer segments than a request that is to be submitted again has.
  case segmentsShrank(from: Int, to: Int)
  /// A request that is no multiple of the disk's sector, or a discard that begins off the granularity, in
  /// units of 512 bytes; both in bytes.
  case misaligned(BlockOperation, sector: UInt64, sectorCount: Int, sectorByteCount: Int, granularity: Int)
  /// A load asks for more sectors in one request than the backend takes.
  case tooLarge(sectorCount: Int, maximum: Int)
  /// The device is not connected.
  case notConnected
  /// The backend broke the ring's rules.
  case ring(RingError)
  /// A response to a request that is not in flight: its id was never used, or it was answered before.
  case unknownResponse(BlockResponse)
  /// A response that names another operation than its request; Linux disables the disk.
  case wrongOperation(BlockResponse, asked: BlockOperation)
  /// A request ended with an error where none is tolerated.
  case requestFailed(BlockOperation, sector: UInt64, status: BlockStatus)
  /// No response within the time allowed.
  case stalled(outstanding: Int, milliseconds: Int)
  /// An image does not fit the disk.
  case doesNotFit(sector: UInt64, byteCount: UInt64, diskSectors: UInt64)

  /// What happened, where, and what to look at.
  public var description: String {
    switch self {
    case .host(let error): return error.description
    case .directory(let error): return error.description
    case .grant(let error): return error.description
    case .events(let error): return error.description
    case .system(let error): return error.description
    case .ringShrank(let from, let to):
      return "the backend now allows \(to) ring slots, but the requests in flight need \(from)"
    case .segmentsShrank(let from, let to):
      return "the backend now allows \(to) segments, but a request in flight has \(from)"
    case .misaligned(let operation, let sector, let count, let sectorByteCount, let granularity):
      return "\(operation) of \(count) sectors at \(sector) on a disk with sectors of \(sectorByteCount) "
        + "bytes" + (operation == .discard ? " and discards every \(granularity) bytes" : "")
    case .tooLarge(let count, let maximum):
      return "requests of \(count) sectors are too large: this backend takes \(maximum)"
    case .notConnected: return "the disk is not connected"
    case .ring(let error): return error.description
    case .unknownResponse(let response):
      return
        "the backend answered id \(response.id) (\(response.operation), \(response.status)), which is not "
        + "in flight"
    case .wrongOperation(let response, let asked):
      return "the backend answered \(response.operation) to the \(asked) with id \(response.id)"
    case .requestFailed(let operation, let sector, let status):
      return "\(operation) at sector \(sector) ended with \(status)"
    case .stalled(let outstanding, let milliseconds):
      return "\(outstanding) requests are without a response after \(milliseconds) ms"
    case .doesNotFit(let sector, let byteCount, let diskSectors):
      return "\(byteCount) bytes at sector \(sector) do not fit the disk of \(diskSectors) sectors"
    }
  }
}
