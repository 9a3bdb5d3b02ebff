public import RingKit

/// What became of a queue's requests, by kind. Plain counts since the queue connected.
public struct BlockTally: Sendable {
  /// One kind of request.
  public struct Kind: Sendable {
    /// Requests answered OKAY.
    public var completed: UInt64 = 0
    /// Requests answered ERROR.
    public var failed: UInt64 = 0
    /// Requests answered EOPNOTSUPP.
    public var unsupported: UInt64 = 0
    /// 512-byte units of the requests answered OKAY.
    public var sectors: UInt64 = 0
    /// From being taken to being answered, of all but refused requests.
    public var latency = LatencyHistogram(.coarse)

    /// Requests answered, whatever the answer.
    public var answered: UInt64 { completed + failed + unsupported }
    /// Bytes of the requests answered OKAY; saturates.
    public var byteCount: UInt64 {
      let (bytes, overflow) = sectors.multipliedReportingOverflow(by: 512)
      return overflow ? .max : bytes
    }

    mutating func add(_ other: Kind) {
      completed += other.completed
      failed += other.failed
      unsupported += other.unsupported
      sectors &+= other.sectors
      latency.add(other.latency)
    }
  }

  private var kinds: [Kind]
  private var refusals: [UInt64]
  /// Requests that came as indirect ones, answered.
  public private(set) var indirectCount: UInt64 = 0

  /// Nothing counted yet.
  public init() {
    kinds = BlockRequestKind.allCases.map { _ in Kind() }
    refusals = RejectReason.allCases.map { _ in 0 }
  }

  /// The numbers of one kind.
  public subscript(kind: BlockRequestKind) -> Kind { kinds[Int(kind.rawValue)] }

  /// Requests that the validator refused for `reason`.
  public func refusals(for reason: RejectReason) -> UInt64 { refusals[Int(reason.rawValue)] }

  /// Requests that the validator refused.
  public var refusalCount: UInt64 { refusals.reduce(0, +) }

  /// Requests answered OKAY.
  public var completedCount: UInt64 { kinds.reduce(0) { $0 + $1.completed } }

  /// Requests answered ERROR, whoever was at fault.
  public var errorCount: UInt64 { kinds.reduce(0) { $0 + $1.failed } }

  /// Counts one request. Allocates nothing as long as nobody else holds a copy of this.
  mutating func note(_ outcome: BlockOutcome) {
    let kind = Int(outcome.kind.rawValue)
    switch outcome.status {
    case .okay:
      kinds[kind].completed += 1
      // A guest may discard 2^64 sectors again and again: what only counts may wrap.
      kinds[kind].sectors &+= outcome.sectorCount
    case .error: kinds[kind].failed += 1
    default: kinds[kind].unsupported += 1
    }
    if outcome.isIndirect { indirectCount += 1 }
    if let reason = outcome.rejection {
      refusals[Int(reason.rawValue)] += 1
    } else {
      kinds[kind].latency.record(outcome.nanoseconds)
    }
  }

  /// Adds another queue's numbers, or an earlier connection's.
  public mutating func add(_ other: BlockTally) {
    for index in kinds.indices { kinds[index].add(other.kinds[index]) }
    for index in refusals.indices { refusals[index] += other.refusals[index] }
    indirectCount += other.indirectCount
  }
}
