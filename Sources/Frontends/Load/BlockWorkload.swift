public import RingKit

/// A load on a disk: what to do, how much at a time, how long.
public struct BlockWorkload: Sendable {
  /// Where the next request goes.
  public enum Pattern: Sendable {
    /// On from the last one, and from the end to the begin.
    case sequential
    /// Anywhere, by the seed.
    case random
  }

  /// Where requests go.
  public var pattern = Pattern.random
  /// Share of reads in percent, 0...100, of what is no discard; the others are writes.
  public var readPercent = 100
  /// Share of discards in percent, 0...100. They begin at the disk's discard granularity.
  public var discardPercent = 0
  /// Share of the writes in percent, 0...100, that are write barriers.
  public var barrierPercent = 0
  /// Share of the writes in percent, 0...100, that are flushes which carry the data; with `barrierPercent` at
  /// most 100.
  public var flushWithDataPercent = 0
  /// Bytes of a block, a multiple of 512: requests begin at multiples of it and are whole blocks.
  public var blockByteCount = 4096
  /// Blocks of a request at most: each has 1 up to so many, by the seed. Barriers and flushes with data have
  /// fewer where eleven pages hold no more.
  public var maximumBlockCount = 1
  /// Requests in flight in each queue, at most the ring's slots.
  public var queueDepth = 1
  /// Requests to make; nil for no such end.
  public var requestCount: UInt64?
  /// Milliseconds after which no new request is made; nil for no such end.
  public var durationMilliseconds: Int?
  /// Chooses places, operations and contents.
  public var seed: UInt64 = 1
  /// Part of the disk to use, in sectors of 512 bytes; nil for all of it.
  public var sectors: Range<UInt64>?
  /// Where data begins in its first page, 0...7 units of 512 bytes.
  public var firstPageSector = 0
  /// A flush follows every so many writes; 0 for never.
  public var writesBetweenFlushes: UInt64 = 0
  /// The frontend reconnects after every so many requests, with those in flight submitted again; 0 for never.
  public var requestsBetweenReconnects: UInt64 = 0
  /// Milliseconds without any response after which the run gives up.
  public var stallMilliseconds = 10_000
  /// True to go on after failed requests, which are counted in any case.
  public var toleratesErrors = false

  /// 4 KiB random reads, one at a time; set an end before running it.
  public init() {}
}

/// What a load did and how long it took.
public struct BlockWorkloadResult: Sendable {
  /// Reads that succeeded.
  public var reads: UInt64 = 0
  /// Writes that succeeded.
  public var writes: UInt64 = 0
  /// Flushes without data that succeeded.
  public var flushes: UInt64 = 0
  /// Of the writes, those that were write barriers or flushes with data.
  public var orderedWrites: UInt64 = 0
  /// Discards that succeeded.
  public var discards: UInt64 = 0
  /// Reads and writes that were indirect requests.
  public var indirectRequests: UInt64 = 0
  /// Requests answered with an error or as not supported.
  public var errors: UInt64 = 0
  /// The first of these: operation, sector, and status.
  public var firstError: BlockFrontendError?
  /// Bytes of the successful reads.
  public var bytesRead: UInt64 = 0
  /// Bytes of the successful writes.
  public var bytesWritten: UInt64 = 0
  /// Bytes of the successful discards.
  public var bytesDiscarded: UInt64 = 0
  /// Sectors compared with the model.
  public var verifiedSectors: UInt64 = 0
  /// Sectors that held what they must not.
  public var mismatches: UInt64 = 0
  /// The first of these.
  public var firstMismatch: SectorMismatch?
  /// From the first request to the last response.
  public var elapsedNanoseconds: UInt64 = 0
  /// Processor time of the thread that ran the load.
  public var usage = ThreadUsage()
  /// From a request's submission to its response being taken.
  public var latency = LatencyHistogram()
  /// Events sent to the backend.
  public var notifications: UInt64 = 0
  /// Times that the load slept until an event.
  public var sleeps: UInt64 = 0

  /// Nothing done.
  public init() {}

  /// Successful requests.
  public var requests: UInt64 { reads + writes + flushes + discards }
  /// Successful requests a second.
  public var requestsPerSecond: Double { perSecond(requests) }
  /// Bytes a second, both ways.
  public var bytesPerSecond: Double { perSecond(bytesRead + bytesWritten) }

  private func perSecond(_ amount: UInt64) -> Double {
    elapsedNanoseconds == 0 ? 0 : Double(amount) * 1e9 / Double(elapsedNanoseconds)
  }
}
